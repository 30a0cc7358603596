import type { Device, MemoryStream } from '../../lib';
import { openTestDevice } from '../support/device';
import { expectReject, expectThrow } from '../support/failures';
import { withHistory } from '../support/refusals';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const newStream = () => withHistory(device.createStream({ heads: 1, headDim: 2, segmentLength: 4 }));
const token = () => Float32Array.of(1, 2);
const input = () => ({ q: token(), k: token(), v: token() });

const closings: [string, (stream: MemoryStream) => void][] = [
  ['close()', (stream) => stream.close()],
  ['Symbol.dispose', (stream) => stream[Symbol.dispose]()],
];

describe.each(closings)('after %s', (_, close) => {
  test('every method fails with ERR_CLOSED', async () => {
    const stream = newStream();
    close(stream);
    const failure = { code: 'ERR_CLOSED', says: ['stream', 'closed'] };
    expectThrow(() => stream.attendSync(input()), failure);
    expectThrow(() => stream.retrieveSync({ q: token() }), failure);
    expectThrow(() => stream.memory(), failure);
    expectThrow(() => stream.reset(), failure);
    expectThrow(() => stream.fork(), failure);
    await expectReject(() => stream.attend(input()), failure);
    await expectReject(() => stream.retrieve({ q: token() }), failure);
    await expectReject(() => stream.snapshot(), failure);
  });

  test('the properties still tell', () => {
    const stream = newStream();
    const { tokens, segments, byteLength, config } = stream;
    expect(stream.closed).toBe(false);
    close(stream);
    expect(stream.closed).toBe(true);
    expect([stream.tokens, stream.segments, stream.byteLength]).toEqual([tokens, segments, byteLength]);
    expect(stream.config).toBe(config);
  });

  test('closing again does nothing', () => {
    const stream = newStream();
    const { streams } = device.stats();
    for (let i = 0; i < 3; i++) for (const [, again] of [['', close] as const, ...closings]) again(stream);
    expect(stream.closed).toBe(true);
    expect(device.stats().streams).toBeLessThanOrEqual(streams - 1); // less: garbage of other tests
  });
});

test('`using` closes stream and device at the end of the block', () => {
  let stream: MemoryStream | undefined;
  let other: MemoryStream | undefined;
  {
    using inner = openTestDevice();
    other = inner.createStream({ heads: 1, headDim: 2 });
    using mine = device.createStream({ heads: 1, headDim: 2 });
    stream = mine;
    expect(stream.closed).toBe(false);
  }
  expect([stream.closed, other.closed]).toEqual([true, true]);
});

test('closing one stream leaves the others', () => {
  const [first, second] = [newStream(), newStream()];
  first.close();
  expect(second.attendSync(input()).length).toBe(2);
  second.close();
});
