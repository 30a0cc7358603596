import { openDevice } from '../../lib';
import { openTestDevice } from '../support/device';
import { dataOf, makeInput } from '../support/inputs';
import { Rng } from '../support/rng';

/** A long open segment is copied in several parts (native/core/stream.cc), between which others have their turn. */
test.each(['float32', 'bfloat16'] as const)(
  'a long open segment of %s goes from device to device and back',
  async (dtype) => {
    using cpu = openDevice('cpu');
    using device = openTestDevice();
    const stream = cpu.createStream({
      heads: 16,
      kvHeads: 8,
      headDim: 128,
      valueDim: 72,
      segmentLength: 4093,
      dtype,
    });
    stream.attendSync(dataOf(makeInput(stream.config, 2999, new Rng(3)))); // 6400 bytes each in float32: 5 parts
    const wanted = Buffer.from(await stream.snapshot());
    const there = await device.restore(wanted);
    const back = await cpu.restore(await there.snapshot());
    expect(wanted.equals(await there.snapshot())).toBe(true);
    expect(wanted.equals(await back.snapshot())).toBe(true);
    const next = dataOf(makeInput(stream.config, 5, new Rng(4)));
    expect(back.attendSync(next)).toEqual(stream.attendSync(next));
  },
);
