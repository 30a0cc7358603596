import type { Device } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject } from '../support/failures';
import { expectRefused, withHistory } from '../support/refusals';

/** Closed, types, dtype, shape, signal already aborted, values: a call that fails twice reports the earlier. */
let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const newStream = () => withHistory(device.createStream({ heads: 1, headDim: 2, segmentLength: 4 }));
const good = () => new Float32Array(4);

const faults = {
  types: { k: 'not a tensor' },
  dtype: { q: new Float64Array(4) },
  shape: { v: new Float32Array(6) },
  values: { q: Float32Array.of(0, Number.NaN, 0, 0) },
};
const codes = {
  types: 'ERR_INVALID_ARG_TYPE',
  dtype: 'ERR_DTYPE',
  shape: 'ERR_SHAPE',
  values: 'ERR_NON_FINITE',
};
type Fault = keyof typeof faults;

test.each([
  ['types', 'dtype'],
  ['types', 'shape'],
  ['types', 'values'],
  ['dtype', 'shape'],
  ['shape', 'values'],
] as [Fault, Fault][])('%s before %s', async (first, second) => {
  const stream = newStream();
  const input = { q: good(), k: good(), v: good(), ...faults[second], ...faults[first] };
  await expectRefused(stream, 'attend', input, { code: codes[first] });
  stream.close();
});

test('a wrong class anywhere comes before a wrong length, and a wrong type anywhere before a wrong class', async () => {
  const stream = newStream();
  const input = { q: new Float32Array(3), k: good(), v: good() };
  await expectRefused(stream, 'attend', input, { code: 'ERR_DTYPE' }, { out: new Uint16Array(4) });
  await expectRefused(
    stream,
    'attend',
    { ...input, q: new Uint16Array(3) },
    { code: 'ERR_INVALID_ARG_TYPE' },
    { out: [] },
  );
  stream.close();
});

describe('a signal that is already aborted', () => {
  const aborted = AbortSignal.abort(new Error('enough'));

  test.each([
    ['types', 'ERR_INVALID_ARG_TYPE'],
    ['dtype', 'ERR_DTYPE'],
    ['shape', 'ERR_SHAPE'],
  ] as [Fault, string][])('comes after %s', async (fault, code) => {
    const stream = newStream();
    const input = { q: good(), k: good(), v: good(), ...faults[fault] };
    await expectReject(() => stream.attend(input as never, { signal: aborted }), { code });
    stream.close();
  });

  test('comes before values, as an AbortError with the reason as its cause', async () => {
    const stream = newStream();
    const { tokens } = stream;
    const input = { q: good(), k: good(), v: good() };
    for (const values of [{}, faults.values]) {
      await expectReject(() => stream.attend({ ...input, ...values }, { signal: aborted }), {
        code: 'ABORT_ERR',
      });
      await expectReject(() => stream.retrieve({ q: good(), ...values }, { signal: aborted }), {
        code: 'ABORT_ERR',
      });
    }
    const error = await stream.attend(input, { signal: aborted }).catch((e: unknown) => e);
    expect((error as Error).cause).toBe(aborted.reason);
    expect(stream.tokens).toBe(tokens);
    stream.close();
  });

  test('of a wrong type is a wrong type', async () => {
    const stream = newStream();
    const input = { q: good(), k: good(), v: good() };
    for (const signal of [null, 5, {}, { aborted: false }, new AbortController(), new EventTarget()]) {
      const says = ['options.signal', 'AbortSignal'];
      await expectReject(() => stream.attend(input, { signal } as never), {
        code: 'ERR_INVALID_ARG_TYPE',
        says,
      });
      await expectReject(() => stream.retrieve({ q: good() }, { signal } as never), {
        code: 'ERR_INVALID_ARG_TYPE',
        says,
      });
    }
    stream.close();
  });
});

test('a closed stream comes before everything', async () => {
  const closed = newStream();
  closed.close();
  const inputs: unknown[] = [
    undefined,
    5,
    ...Object.values(faults).map((fault) => ({ q: good(), k: good(), v: good(), ...fault })),
  ];
  for (const input of inputs) {
    await expectReject(() => closed.attend(input as never), { code: 'ERR_CLOSED' });
    await expectReject(() => closed.retrieve(input as never, 5 as never), { code: 'ERR_CLOSED' });
    expect(() => closed.attendSync(input as never)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    expect(() => closed.retrieveSync(input as never)).toThrow(
      expect.objectContaining({ code: 'ERR_CLOSED' }),
    );
  }
  expect(inputs.length).toBe(6);
});
