// The benchmark's arithmetic against figures worked out by hand.

const { compare, describe: inWords, ratesOf, work } = require('../../bench/gpu/floors.cjs');

const h100 = ratesOf('NVIDIA H100 80GB HBM3', 1234);

describe('operations and bytes of one head and segment', () => {
  test.each([
    ['local', 512, 64, 33.6, 256],
    ['retrieval', 512, 64, 4.2, 144],
    ['state', 512, 64, 8.4, 160],
    ['step', 512, 64, 46.1, 288],
    ['local', 2048, 128, 1074, 2048],
    ['retrieval', 2048, 128, 67.1, 1088],
    ['state', 2048, 128, 134.2, 1152],
    ['step', 2048, 128, 1275, 2176],
  ])('%s, N=%i, d=%i', (kind, segment, dim, megaflops, kilobytes) => {
    const { flops, bytes } = work[kind](segment, dim);
    expect(flops / 1e6).toBeCloseTo(megaflops, megaflops < 1000 ? 0 : -1);
    expect(bytes / 1024).toBe(kilobytes);
  });

  test.each([
    [512, 64, 81],
    [512, 128, 194],
    [2048, 64, 273],
    [2048, 128, 578],
  ])('decode, N=%i, d=%i, half of the segment cached', (segment, dim, kilobytes) => {
    expect(work.decode(segment, dim, segment / 2).bytes / 1024).toBeCloseTo(kilobytes, -0.5);
  });

  test('a forward pass does the work of local attention and of retrieval, on one reading of q', () => {
    const [local, retrieval, forward] = ['local', 'retrieval', 'forward'].map((kind) => work[kind](512, 128));
    expect(forward.flops).toBe(local.flops + retrieval.flops);
    expect(forward.bytes).toBe(local.bytes + 4 * 128 * 128);
  });
});

describe('the floor', () => {
  test.each([
    [512, 64, 32, 8, 25.2, 'bandwidth'],
    [512, 128, 32, 8, 55.9, 'bandwidth'],
    [2048, 64, 32, 8, 190, 'arithmetic'],
    [2048, 128, 32, 64, 3305, 'arithmetic'],
  ])('of a step, N=%i, d=%i, %i heads, %i streams', (segment, dim, heads, streams, floor, bound) => {
    const found = compare({ kind: 'step', segment, dim, heads, streams, microseconds: 2 * floor }, h100);
    expect(found.floor / floor).toBeCloseTo(1, 2);
    expect(found.fraction).toBeCloseTo(0.5, 2);
    expect(found.bound).toBe(bound);
  });

  test('of a case bound by exponentials', () => {
    const rates = { tflops: 790, gigabytes: 3000, gigaexps: 1000 };
    const found = compare(
      { kind: 'forward', segment: 2048, dim: 64, heads: 1, streams: 1, microseconds: 5 },
      rates,
    );
    expect(found.bound).toBe('exponentials');
    expect(found.floor).toBeCloseTo((2048 * 1024 + 2048 * 64) / 1e6, 5);
  });

  test('gives achieved rates', () => {
    const found = compare(
      { kind: 'decode', segment: 2048, dim: 128, heads: 32, streams: 64, open: 1024, microseconds: 500 },
      h100,
    );
    const bytes = 32 * 64 * work.decode(2048, 128, 1024).bytes;
    expect(found.gigabytes).toBeCloseTo(bytes / 500e-6 / 1e9, 3);
    expect(found.bound).toBe('bandwidth');
  });

  test('of a GPU that is not in the table rests on the bandwidth measured on it', () => {
    const rates = ratesOf('NVIDIA Something', 500);
    const found = compare(
      { kind: 'step', segment: 2048, dim: 128, heads: 1, streams: 1, microseconds: 100 },
      rates,
    );
    expect(found.bound).toBe('bandwidth');
    expect(found.floor).toBeCloseTo((2176 * 1024) / 500e3, 5);
  });

  test.each([
    ['NVIDIA H100 80GB HBM3', 3000, /^floors at 790 TFLOP\/s, 3000 GB\/s, .*: from an estimate/],
    ['NVIDIA H200', 4300, /from an estimate/],
    ['NVIDIA GH200 480GB', 4000, /^floors at 990 TFLOP\/s, .*: from the data sheet$/],
    ['NVIDIA A100-SXM4-80GB', 2039, /from the data sheet$/],
    ['NVIDIA Something', 500, /^floors at 500 GB\/s: from a copy measured in this run$/],
  ])('of %s says where its rates are from', (name, gigabytes, words) => {
    const rates = ratesOf(name, 500);
    expect(rates.gigabytes).toBe(gigabytes);
    expect(inWords(rates)).toMatch(words);
    expect(JSON.parse(JSON.stringify(rates))).toEqual(rates); // as the results keep them
  });
});
