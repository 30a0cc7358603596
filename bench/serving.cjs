// The scheduler under load: latency of one-token steps of many streams, with and without a long prefill beside them, and
// its throughput beside one stream that does the same work alone. After `npm run build`:
//   node bench/serving.cjs [--json] [--streams 1,64,512] [--seconds 2] [--rounds 5] [--prefill 16384] [--heads 8]
//     [--head-dim 64] [--segment 512] [--dtype float32] [--device auto] [--batch 1024]

const os = require('node:os');
const { parseArgs } = require('node:util');
const { Client, makeInputs, verify } = require('./serving-load.cjs');

const defaults = {
  streams: '1,64,512',
  seconds: '2',
  rounds: '5',
  prefill: '16384',
  heads: '8',
  'head-dim': '64',
  segment: '512',
  dtype: 'float32',
  device: 'auto',
  batch: '1024',
};

function readOptions(args) {
  const text = Object.keys(defaults).map((key) => [key, { type: 'string', default: defaults[key] }]);
  const { values } = parseArgs({ args, options: { ...Object.fromEntries(text), json: { type: 'boolean' } } });
  const number = (key) => {
    const value = Number(values[key]);
    if (!(value > 0)) throw new Error(`--${key} must be a number above 0 instead of ${values[key]}`);
    return value;
  };
  const streams = values.streams.split(',').map(Number);
  if (!streams.every((count) => Number.isInteger(count) && count > 0))
    throw new Error(`--streams must be counts instead of ${values.streams}`);
  return {
    json: values.json === true,
    streams,
    seconds: number('seconds'),
    rounds: number('rounds'),
    prefill: number('prefill'),
    device: values.device,
    maxBatchTokens: number('batch'),
    config: {
      heads: number('heads'),
      headDim: number('head-dim'),
      segmentLength: number('segment'),
      dtype: values.dtype,
    },
  };
}

const milliseconds = () => performance.now();

function quantiles(times) {
  const sorted = Float64Array.from(times).sort();
  const at = (fraction) => sorted[Math.min(sorted.length - 1, Math.floor(fraction * sorted.length))];
  return { p50: at(0.5), p99: at(0.99), most: sorted[sorted.length - 1] };
}

const median = (numbers) => Float64Array.from(numbers).sort()[numbers.length >> 1];

/** Every client sends its next token when it has the last one's output; a prefill runs beside them again and again. */
async function measureLatency({ device, StreamScheduler }, options, count, beside, check) {
  const { config, seconds, prefill, maxBatchTokens } = options;
  const inputs = makeInputs(config, 2 * config.segmentLength);
  const scheduler = new StreamScheduler(device, { maxBatchTokens });
  const clients = Array.from({ length: count }, () => new Client(scheduler.createStream(config), inputs));
  const warm = config.segmentLength + (config.segmentLength >> 1); // a memory, and half a segment
  for (const client of clients) while (client.given < warm) await client.next(warm - client.given);
  const zeros = () =>
    new (config.dtype === 'float32' ? Float32Array : Uint16Array)(prefill * config.heads * config.headDim);
  const prefills = [];
  let going = true;
  const runPrefills = async () => {
    const stop = new AbortController();
    const stream = scheduler.createStream(config);
    prefills.stop = () => stop.abort();
    while (going) {
      const begin = milliseconds();
      const input = { q: zeros(), k: zeros(), v: zeros() };
      const done = await stream.attend(input, { signal: stop.signal, transfer: true }).catch((error) => {
        if (error.code !== 'ABORT_ERR') throw error;
      });
      if (done) prefills.push(milliseconds() - begin);
    }
    stream.close();
  };
  const prefilling = beside ? runPrefills() : undefined;
  const times = [];
  const begin = milliseconds();
  const end = begin + 1000 * seconds;
  await Promise.all(
    clients.map(async (client) => {
      while (milliseconds() < end) {
        const sent = milliseconds();
        await client.next(1);
        times.push(milliseconds() - sent);
      }
    }),
  );
  const wall = milliseconds() - begin;
  going = false;
  prefills.stop?.();
  await prefilling;
  await verify(device, config, clients.length > 64 ? clients.slice(0, 64) : clients, inputs, check);
  const { steps } = scheduler.stats();
  scheduler.close();
  return {
    streams: count,
    prefill: beside,
    milliseconds: quantiles(times),
    tokensPerSecond: (1000 * times.length) / wall,
    prefillsFinished: prefills.length,
    schedulerSteps: steps,
  };
}

/** The same tokens once through the scheduler, on several streams at a time, and once on one stream alone. */
async function measureThroughput({ device, StreamScheduler }, options, what, count, check) {
  const { config, rounds, maxBatchTokens } = options;
  const { segmentLength } = config;
  const piece = what === 'prefill' ? 4 * segmentLength : 1;
  const each = what === 'prefill' ? piece : segmentLength;
  const inputs = makeInputs(config, what === 'prefill' ? piece : 2 * segmentLength);
  const feed = async (client) => {
    for (let done = 0; done < each; done += piece) await client.next(piece);
  };
  const ratios = [];
  const [together, alone, unscheduled] = [[], [], []];
  for (let round = 0; round < rounds; round++) {
    const scheduler = new StreamScheduler(device, { maxBatchTokens });
    const clients = Array.from({ length: count }, () => new Client(scheduler.createStream(config), inputs));
    for (const client of clients) await client.next(1); // its memory is there
    const tokens = count * each;
    let begin = milliseconds();
    await Promise.all(clients.map(feed));
    together.push((1000 * tokens) / (milliseconds() - begin));
    if (round === 0) await verify(device, config, clients, inputs, check);
    scheduler.close();
    const streams = Array.from({ length: count }, () => new Client(device.createStream(config), inputs));
    for (const client of streams) await client.next(1);
    begin = milliseconds();
    await Promise.all(streams.map(feed));
    unscheduled.push((1000 * tokens) / (milliseconds() - begin));
    for (const { stream } of streams) stream.close();
    const one = new Client(device.createStream(config), inputs);
    await one.next(1);
    begin = milliseconds();
    for (let i = 0; i < count; i++) await feed(one);
    alone.push((1000 * tokens) / (milliseconds() - begin));
    one.stream.close();
    ratios.push(together[round] / alone[round]);
  }
  return {
    work: what,
    streams: count,
    tokensPerSecond: median(together),
    aloneTokensPerSecond: median(alone),
    unscheduledTokensPerSecond: median(unscheduled),
    ratio: median(ratios),
    ratios,
  };
}

function inWords({ machine, latency, throughput }) {
  const lines = [`${machine.device.name}, ${machine.cores} cores, Node ${machine.node}`, ''];
  lines.push('streams  prefill beside  p50 ms  p99 ms  worst ms  tokens/s');
  for (const { streams, prefill, milliseconds: ms, tokensPerSecond } of latency) {
    const numbers = [ms.p50, ms.p99, ms.most].map((time, i) => time.toFixed(2).padStart([6, 6, 8][i]));
    const row = [String(streams).padStart(7), (prefill ? 'yes' : 'no').padStart(14), ...numbers];
    lines.push([...row, tokensPerSecond.toFixed(0).padStart(8)].join('  '));
  }
  lines.push(
    '',
    'work       streams  scheduler tokens/s  one stream alone  ratio  streams without scheduler',
  );
  for (const one of throughput) {
    const cells = [
      one.work.padEnd(9),
      String(one.streams).padStart(7),
      one.tokensPerSecond.toFixed(0).padStart(18),
      one.aloneTokensPerSecond.toFixed(0).padStart(16),
      one.ratio.toFixed(2).padStart(5),
      one.unscheduledTokensPerSecond.toFixed(0).padStart(25),
    ];
    lines.push(cells.join('  '));
  }
  return lines.join('\n');
}

/** Throws, and gives no time, when a result is not that of the stream alone. */
async function measure(options, { openDevice, StreamScheduler } = require('..')) {
  const device = openDevice(options.device);
  const place = { device, StreamScheduler };
  try {
    const check = { exact: device.info.backend === 'cpu', dtype: options.config.dtype };
    const latency = [];
    for (const count of options.streams) {
      for (const beside of [false, true])
        latency.push(await measureLatency(place, options, count, beside, check));
    }
    const throughput = [];
    for (const work of ['prefill', 'one token']) {
      for (const count of options.streams.filter((many) => many <= 64))
        throughput.push(await measureThroughput(place, options, work, count, check));
    }
    const { seconds, rounds, prefill, maxBatchTokens, config } = options;
    const machine = { device: device.info, cores: os.availableParallelism(), node: process.version };
    return { machine, asked: { seconds, rounds, prefill, maxBatchTokens, config }, latency, throughput };
  } finally {
    device.close();
  }
}

async function main(args) {
  const options = readOptions(args);
  const report = await measure(options);
  console.log(options.json ? JSON.stringify(report, null, 2) : inWords(report));
}

module.exports = { inWords, measure, readOptions };

if (require.main === module) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
}
