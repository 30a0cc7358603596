import { applyTransition, composeTransitions, type Device, type Transition } from '../../lib';
import { ReferenceStream } from '../reference/reference-stream';
import { expectAccurate } from '../support/accuracy';
import { openTestDevice } from '../support/device';
import { type Draw, type Draws, dataOf, makeInput, valuesOf } from '../support/inputs';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { stateOf } from '../support/state';
import { DTYPES } from '../support/tensors';
import { allowed, makeText, memoryError, prefixes, RULES, record, transitionsOf } from './text';

/** One text in parts equals one text in one stream. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const shape = { heads: 4, kvHeads: 2, headDim: 8, valueDim: 6, segmentLength: 8 };

describe.each(RULES)("rule '%s'", (rule) => {
  for (const dtype of DTYPES) {
    seededTest(`four parts make the same memory, and outputs as accurate, in ${dtype}`, async (rng) => {
      const config = { ...shape, rule, dtype, gate: [-1, 0, 1, 2], rope: { theta: 100 } };
      const text = makeText(device, config, [3, 1, 4, 2], rng);
      const sequential = device.createStream(config);
      await sequential.attend(dataOf(text.whole));
      const transitions = await transitionsOf(device, text);
      const empty = device.createStream(config);
      const whole = applyTransition(empty, composeTransitions(transitions));
      expect([whole.tokens, whole.segments]).toEqual([80, 10]);
      expect(whole.config).toEqual(sequential.config);
      expect(memoryError(whole, sequential)).toBeLessThan(allowed(dtype));

      const reference = new ReferenceStream(config);
      for (const [i, prefix] of prefixes(transitions).entries()) {
        const part = text.parts[i];
        const worker = prefix ? applyTransition(empty, prefix) : empty.fork();
        const wanted = reference.attend(valuesOf(part));
        expectAccurate({
          what: `the output of part ${i}`,
          dtype,
          actual: await worker.attend(dataOf(part)),
          wanted: wanted.output,
          heads: 4,
          dim: 6,
          maxLogit: wanted.maxLogit,
          rope: true,
        });
        expect(worker.tokens).toBe(reference.tokens);
        worker.close();
      }
      for (const stream of [sequential, empty, whole]) stream.close();
    });
  }

  seededTest('parts are applied one after the other as well as composed', async (rng) => {
    const config = { ...shape, rule };
    const text = makeText(device, config, [2, 2, 2], rng);
    const sequential = device.createStream(config);
    await sequential.attend(dataOf(text.whole));
    let stream = device.createStream(config);
    for (const transition of await transitionsOf(device, text)) {
      const state = stateOf(stream);
      const next = applyTransition(stream, transition);
      expect(stateOf(stream)).toEqual(state);
      stream.close();
      stream = next;
    }
    expect(memoryError(stream, sequential)).toBeLessThan(allowed('float32'));
    stream.close();
    sequential.close();
  });

  seededTest('the first part may be a stream, and the last one attends', async (rng) => {
    const config = { ...shape, rule };
    const text = makeText(device, config, [2, 3], rng);
    const [sequential, first] = [device.createStream(config), device.createStream(config)];
    await sequential.attend(dataOf(text.whole));
    await first.attend(dataOf(text.parts[0]));
    const start = first.exportTransition();
    const { matrix, normalizer } = first.memory();
    expect([start.tokens, start.B, start.normalizer]).toEqual([16, matrix, normalizer]);
    const rest = await record(device, config, text.parts[1], start.normalizer);
    const whole = applyTransition(device.createStream(config), composeTransitions([start, rest]));
    expect(memoryError(whole, sequential)).toBeLessThan(allowed('float32'));
    expect(memoryError(applyTransition(first, rest), sequential)).toBeLessThan(allowed('float32'));
  });

  seededTest('64 parts of one segment', async (rng) => {
    const config = { ...shape, segmentLength: 4, rule };
    const text = makeText(device, config, Array(64).fill(1), rng);
    const sequential = device.createStream(config);
    await sequential.attend(dataOf(text.whole));
    const transitions = await transitionsOf(device, text);
    const empty = device.createStream(config);
    const fold = applyTransition(empty, composeTransitions(transitions));
    const tree = (list: Transition[]): Transition =>
      list.length === 1
        ? list[0]
        : composeTransitions([tree(list.slice(0, list.length / 2)), tree(list.slice(list.length / 2))]);
    expect(memoryError(fold, sequential)).toBeLessThan(allowed('float32'));
    expect(memoryError(applyTransition(empty, tree(transitions)), sequential)).toBeLessThan(
      allowed('float32'),
    );
  });
});

const far: Draw = () => -1000; // sigma of it is 0
describe('where features are 0', () => {
  for (const [name, draws] of [
    ['in every key of the first part', [{ k: far }, {}, {}]],
    [
      'in one component of the first part',
      [{ k: ((rng, i) => (i === 0 ? -1000 : rng.normal())) as Draw }, {}, {}],
    ],
    [
      'in one component everywhere',
      Array(3).fill({ k: (rng: Rng, i: number) => (i === 0 ? -1000 : rng.normal()) }),
    ],
    ['in every key of the second part', [{}, { k: far }, {}]],
  ] as [string, Draws[]][]) {
    seededTest(name, async (rng) => {
      const config = { ...shape, rule: 'delta' as const };
      const sequential = device.createStream(config);
      const parts = draws.map((draw) => makeInput(sequential.config, 16, rng, draw));
      for (const part of parts) await sequential.attend(dataOf(part));
      const transitions = await transitionsOf(device, { config, parts });
      const whole = applyTransition(device.createStream(config), composeTransitions(transitions));
      expect(memoryError(whole, sequential)).toBeLessThan(allowed('float32'));
      expect(whole.tokens).toBe(48);
    });
  }
});
