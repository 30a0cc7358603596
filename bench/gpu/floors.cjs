// The least time that a GPU could need: what the arithmetic, the exponentials and the bytes take at its best rates,
// the longest of the three. Counted for one key/value head and one segment of N tokens, d = headDim = valueDim, in
// 16-bit elements with M in float32; a multiplication and an addition are two operations, masked products none.

// Where the rates of a GPU are from. None of them was measured by us.
const estimate = 'an estimate of the best in practice';
const dataSheet = 'the data sheet';

/** Rates for dense bfloat16 with float32 sums; of exponentials, 16 for each clock and multiprocessor. */
const gpus = [
  { name: /H100 (80GB HBM3|SXM)/, tflops: 790, gigabytes: 3000, gigaexps: 3900, source: estimate },
  { name: /\bH200/, tflops: 790, gigabytes: 4300, gigaexps: 3900, source: estimate },
  { name: /H100.*PCIe/, tflops: 756, gigabytes: 2000, gigaexps: 3200, source: dataSheet },
  { name: /GH200/, tflops: 990, gigabytes: 4000, gigaexps: 3900, source: dataSheet },
  { name: /A100.*80GB/, tflops: 312, gigabytes: 2039, gigaexps: 2400, source: dataSheet },
  { name: /A100/, tflops: 312, gigabytes: 1555, gigaexps: 2400, source: dataSheet },
  { name: /L40S/, tflops: 362, gigabytes: 864, gigaexps: 5700, source: dataSheet },
  { name: /RTX 4090/, tflops: 165, gigabytes: 1008, gigaexps: 5100, source: dataSheet },
  { name: /RTX 5090/, tflops: 210, gigabytes: 1792, gigaexps: 6500, source: dataSheet },
  { name: /B200/, tflops: 2250, gigabytes: 8000, gigaexps: 4600, source: dataSheet },
];

/** The rates of a GPU by its name; of an unknown one, only the bandwidth that was just measured: the rest is no bound. */
function ratesOf(name, measuredGigabytes) {
  const known = gpus.find((gpu) => gpu.name.test(name));
  if (!known) return { gigabytes: measuredGigabytes, source: 'a copy measured in this run' };
  const { tflops, gigabytes, gigaexps, source } = known;
  return { tflops, gigabytes, gigaexps, source };
}

/** The rates in words. */
function describe({ tflops, gigabytes, gigaexps, source }) {
  const rates = [tflops && `${tflops} TFLOP/s`, `${gigabytes} GB/s`, gigaexps && `${gigaexps} billion exp/s`];
  return `floors at ${rates.filter(Boolean).join(', ')}: from ${source}`;
}

/** Operations, bytes and exponentials of one head and segment; of one token for `decode`, with `open` tokens cached. */
const work = {
  local: (N, d) => ({ flops: 2 * N * N * d, bytes: 8 * N * d, exps: (N * N) / 2 }),
  retrieval: (N, d) => ({ flops: 2 * N * d * d, bytes: 4 * N * d + 4 * d * d, exps: N * d }),
  state: (N, d) => ({ flops: 4 * N * d * d, bytes: 4 * N * d + 8 * d * d, exps: N * d }),
  // Local attention and retrieval in one pass over q, k and v.
  forward: (N, d) => ({
    flops: 2 * N * N * d + 2 * N * d * d,
    bytes: 8 * N * d + 4 * d * d,
    exps: (N * N) / 2 + N * d,
  }),
  // All of it, each tensor read or written once.
  step: (N, d) => ({
    flops: 2 * N * N * d + 6 * N * d * d,
    bytes: 8 * N * d + 8 * d * d,
    exps: (N * N) / 2 + 2 * N * d,
  }),
  decode: (_, d, open) => ({
    flops: 4 * open * d + 2 * d * d,
    bytes: 4 * d * d + 4 * d + 4 * open * d + 8 * d,
    exps: open + d,
  }),
};

/** The floor of a measured case { kind, segment, dim, heads, streams, open }, and how near its time comes. */
function compare({ kind, segment, dim, heads, streams, open, microseconds }, rates) {
  const one = work[kind](segment, dim, open);
  const count = heads * streams;
  const times = {
    arithmetic: (one.flops * count) / ((rates.tflops ?? Number.POSITIVE_INFINITY) * 1e6),
    bandwidth: (one.bytes * count) / (rates.gigabytes * 1e3),
    exponentials: (one.exps * count) / ((rates.gigaexps ?? Number.POSITIVE_INFINITY) * 1e3),
  };
  const bound = Object.keys(times).reduce((a, b) => (times[b] > times[a] ? b : a));
  return {
    floor: times[bound],
    bound,
    fraction: times[bound] / microseconds,
    tflops: (one.flops * count) / microseconds / 1e6,
    gigabytes: (one.bytes * count) / microseconds / 1e3,
  };
}

module.exports = { compare, describe, ratesOf, work };
