import type { Device, MemoryStream, ScheduledStream, StreamConfig, Tensor } from '../../lib';
import { emulated, onCuda } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import type { Rng } from '../support/rng';
import { bytesOf } from '../support/tensors';

export const config: StreamConfig = { heads: 2, headDim: 8, segmentLength: 8 };

/** What a stream takes. It is closed at once: one that is forgotten goes when it likes, and tests count streams. */
export function bytesOfStream(device: Device): number {
  using stream = device.createStream(config);
  return stream.byteLength;
}

export function inputFor(stream: ScheduledStream | MemoryStream, tokens: number, rng: Rng) {
  return dataOf(makeInput(stream.config, tokens, rng));
}

/** The same bits; of a GPU, whose outputs depend on how tokens are cut, the same numbers nearly. */
export function expectSame(found: Tensor, wanted: Tensor): void {
  expect(found.length).toBe(wanted.length);
  if (!onCuda) {
    expect(bytesOf(found).equals(bytesOf(wanted))).toBe(true);
    return;
  }
  let [difference, norm] = [0, 1e-12];
  for (let i = 0; i < found.length; i++) {
    difference += (found[i] - wanted[i]) ** 2;
    norm += wanted[i] ** 2;
  }
  expect(Math.sqrt(difference / norm)).toBeLessThan(1e-4);
}

/** A stream of a scheduler and one of the device that is given the same. */
export class Twins {
  readonly alone: MemoryStream;

  constructor(
    device: Device,
    readonly stream: ScheduledStream,
  ) {
    this.alone = device.createStream(stream.config as StreamConfig);
  }

  /** The same tokens for both; resolves when the outputs have been compared. */
  async attend(tokens: number, rng: Rng): Promise<void> {
    const input = inputFor(this.stream, tokens, rng);
    const found = this.stream.attend(input);
    const wanted = await this.alone.attend(input);
    expectSame(await found, wanted);
  }

  /** Whether both are in the same state: what they say of some tokens, and how they go on. */
  async compare(rng: Rng): Promise<void> {
    expect(this.stream.tokens).toBe(this.alone.tokens);
    const probe = inputFor(this.stream, this.stream.config.segmentLength + 1, rng);
    const found = this.stream.retrieve({ q: probe.q });
    expectSame(await found, await this.alone.retrieve({ q: probe.q }));
    expectSame(await this.stream.attend(probe), await this.alone.attend(probe));
  }
}

export const fewer = emulated ? 4 : 1;
