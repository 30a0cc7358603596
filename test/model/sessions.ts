import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadModel, type Model } from '../../lib';
import { DEVICE_ID } from '../support/device';
import { Rng } from '../support/rng';
import { writeTinyModel } from '../support/tiny-model';

/** A tiny model for the tests of one file, and where its files are. */
export function useTinyModel(): { readonly model: Model; readonly directory: string } {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-session-'));
  const directory = path.join(folder, 'model');
  let model: Model;
  beforeAll(async () => {
    await writeTinyModel(directory, { segmentLength: 8, vocabulary: 24, seed: 3 });
    model = await loadModel(directory, { device: DEVICE_ID });
  });
  afterAll(() => {
    model.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    get model() {
      return model;
    },
    directory,
  };
}

export const draw = (count: number, seed = 1): Int32Array => {
  const rng = new Rng(seed);
  return Int32Array.from({ length: count }, () => rng.int(0, 23));
};

/** Bit for bit on the CPU; on CUDA how tokens come in changes the last digits. */
export function expectSame(actual: Float32Array, wanted: Float32Array): void {
  if (DEVICE_ID === 'cpu') expect(actual).toEqual(wanted);
  const scale = Math.max(...wanted.map(Math.abs));
  expect(Math.max(...actual.map((logit, i) => Math.abs(logit - wanted[i])))).toBeLessThan(1e-5 * scale);
}

export const code = (name: string) => expect.objectContaining({ code: name });

export const caught = async (work: () => unknown): Promise<unknown> => {
  try {
    await work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
};
