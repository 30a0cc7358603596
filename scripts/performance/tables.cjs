// Markdown from results.

const count = (value) => Math.round(value).toLocaleString('en-US');
/** Three digits. */
const short = (value) => (value >= 99.95 ? count(value) : value.toFixed(value >= 9.995 ? 1 : 2));
const ratio = (value) => `${value.toFixed(value < 1.995 ? 2 : value < 9.95 ? 1 : 0)}×`;
const megabytes = (value) => `${short(value / 1e6)} MB`;
const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

const table = ([heading, ...rows], align) =>
  [heading, align, ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

function placeOf({ cpu, device }) {
  const simd = device.simd ? ` (${{ avx2: 'AVX2', avx512: 'AVX-512' }[device.simd] ?? device.simd})` : '';
  return `${device.threads ? `${plural(device.threads, 'thread')} of ` : ''}${device.backend === 'cpu' ? cpu : device.name}${simd}`;
}

const spreadOf = ({ median, min, max }) => `${short(median)} (${short(min)}–${short(max)})`;
const workOf = ({ work, streams }) => (streams === undefined ? work : `${work} of ${streams}`);

/** Whoever does the same work: those that only decode over a cache have a table of their own. */
const CACHE = /, (\d+)K cached$/;
const peersOf = (results) =>
  [...new Set(results.flatMap(({ contenders }) => contenders.slice(1).map(({ name }) => name)))].filter(
    (name) => !CACHE.test(name),
  );

function cases({ results }) {
  const peers = peersOf(results);
  const heading = ['work', 'N × d', 'tokens/s', 'µs/token (range)', 'GFLOP/s', 'GB/s', 'of floor', ...peers];
  const rows = results.map((result) => {
    const [own, ...others] = result.contenders;
    return [
      workOf(result),
      `${count(result.segment)} × ${result.headDim}`,
      count(own.tokensPerSecond),
      spreadOf(own.microsecondsPerToken),
      own.gflops === null ? '' : short(own.gflops),
      own.gbps == null ? '' : short(own.gbps),
      own.ofFloor === null ? '' : `${Math.round(100 * own.ofFloor)} %`,
      ...peers.map((name) => {
        const other = others.find((one) => one.name === name);
        return other ? ratio(other.firstIsFaster.median) : '';
      }),
    ];
  });
  return table([heading, ...rows], ['---', '---', ...heading.slice(2).map(() => '---:')]);
}

/** From how many cached tokens on the fixed memory is faster, and smaller. */
function crossing(own, caches) {
  const slower = caches.findIndex((cache) => cache.microseconds > own.microseconds);
  const last = caches.at(-1);
  const [at, before] = [caches[slower], caches[slower - 1]];
  let time = `between ${before?.tokens / 1024}K and ${at?.tokens / 1024}K`;
  if (slower < 0) time = `above ${last.tokens / 1024}K`;
  if (slower === 0) time = `below ${at.tokens / 1024}K`;
  return { time, bytes: count((own.bytes / last.bytes) * last.tokens) };
}

/** Decoding beside full attention over a cache of keys and values. Null where nobody measured that. */
function caches({ results }) {
  const measured = results.flatMap((result) => {
    const [own, ...others] = result.contenders.map(({ name, microsecondsPerToken, about }) => ({
      tokens: 1024 * Number(CACHE.exec(name)?.[1]),
      microseconds: microsecondsPerToken.median,
      bytes: about?.bytes,
    }));
    const cached = others.filter(({ tokens }) => tokens > 0).sort((a, b) => a.tokens - b.tokens);
    return cached.length > 0 ? [{ result, own, cached }] : [];
  });
  if (measured.length === 0) return null;
  const lengths = measured[0].cached.map(({ tokens }) => `${tokens / 1024}K cached`);
  const cell = ({ microseconds, bytes }) => `${count(microseconds)} µs, ${megabytes(bytes)}`;
  const rows = measured.map(({ result, own, cached }) => {
    const from = crossing(own, cached);
    const shape = `${count(result.segment)} × ${result.headDim}`;
    return [shape, cell(own), ...cached.map(cell), `${from.time}; ${from.bytes}`];
  });
  const heading = ['N × d', 'a stream, at any length', ...lengths, 'faster from; smaller from'];
  return table([heading, ...rows], ['---', ...heading.slice(1).map(() => '---:')]);
}

const ALONG = { tokens: 'tokens before it', threads: 'threads', streams: 'streams' };

function curves({ curves }) {
  return curves.map(({ along, work, points }) => {
    const rate = ({ microsecondsPerToken, tokensPerSecond }) =>
      along === 'tokens' ? `${short(microsecondsPerToken.median)} µs` : count(tokensPerSecond);
    const heading = [ALONG[along], ...points.map(({ at }) => count(at))];
    const row = [`${work}, ${along === 'tokens' ? 'time per token' : 'tokens/s'}`, ...points.map(rate)];
    return table([heading, row], ['---', ...points.map(() => '---:')]);
  });
}

const source = ({ file, day, report }) =>
  `${placeOf(report)}, Node ${report.node}, ${day}, \`${report.command}\` ([result](bench/results/${file}))`;

function ofCases(result, withCaches) {
  const { results } = result.report;
  const [{ heads, kvHeads, dtype, rule, contenders }] = results;
  const shape = `${heads} heads${kvHeads === heads ? '' : ` (${kvHeads} for keys and values)`}`;
  const measured = plural(contenders[0].runs, 'interleaved round');
  const cached = withCaches ? caches(result.report) : null;
  return [
    `**${dtype}**, ${rule} rule, ${shape}, medians of ${measured}: ${source(result)}.`,
    cases(result.report),
    ...(cached
      ? [
          'Decoding beside full attention over a key-value cache (PyTorch), time and bytes for a token of one stream:',
          cached,
        ]
      : []),
  ];
}

function ofScaling(result) {
  const { heads, headDim, segment, dtype } = result.report;
  return [
    `**Scaling**, ${dtype}, ${heads} heads of ${headDim}, segments of ${count(segment)}: ${source(result)}.`,
    ...curves(result.report),
  ];
}

const LEGEND = `From JavaScript, copies included; N tokens a segment, heads of d. *prefill*: whole segments through \`attend\`; *decode*:
token by token through \`attendSync\`, absorptions included; *state*: absorbing a segment alone; *batch*: a segment of each stream through
\`attendBatch\`; *step*: a token of each through a prepared batch. *Of floor*: the least time that this machine, measured in the
same minutes, could take, over the time taken. The last columns are peers in the same rounds: how many times as fast infini-stream is.
How it is measured, and on what else: [bench/README.md](bench/README.md).`;

/** The section of README.md. */
function performance(results) {
  const measured = results.filter(({ report }) => report.results);
  const scaled = results.filter(({ report }) => report.curves);
  const parts = [
    LEGEND,
    ...measured.flatMap((result, i) => ofCases(result, i === 0)),
    ...scaled.flatMap(ofScaling),
  ];
  return parts.join('\n\n');
}

/** Of results that do not say it themselves. */
function commandOf({ command, model, settings }) {
  if (command) return command;
  if (!model) return undefined;
  const { lengths, haystack, seed, keys } = settings;
  const names = lengths.map((length) =>
    length % 2 ** 20 === 0 ? `${length / 2 ** 20}M` : `${length / 1024}K`,
  );
  const keep = keys === undefined ? '' : ` --keys ${keys}`;
  return `npx infini-stream passkey --rule ${model.rule} --haystack ${haystack} --lengths ${names}${keep} --seed ${seed} --json`;
}

/** The table of bench/README.md: where every figure comes from. */
function listOfResults(results) {
  const rows = results.flatMap(({ file, report }) => {
    const command = commandOf(report);
    if (command === undefined) return []; // of a GPU: bench/README.md says how
    return [[`[${file}](results/${file})`, `\`${command}\``, placeOf(report), report.date.slice(0, 10)]];
  });
  return table([['result', 'command', 'machine', 'date'], ...rows], ['---', '---', '---', '---']);
}

module.exports = { listOfResults, performance };
