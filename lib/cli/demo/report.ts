import { bytes, count, percent, plural, table } from '../format';
import { type DemoResult, READINGS, type Reading } from './run';
import { ALARM, CHANCE } from './score';

const TITLES: Record<Reading, string> = {
  memory: 'the memory',
  noKeys: 'never told',
  reset: 'reset',
  otherMarker: 'other marker',
};

/** What is about to happen, printed before the long part. */
export function introduction(name: string, characters: number, settings: DemoResult['settings']): string {
  const { tokens, seed, needles, digits, heads, headDim, valueDim, segment, rule } = settings;
  const rounds =
    tokens > characters
      ? `, read ${(tokens / characters).toFixed(1)} times over (it is shorter than asked)`
      : '';
  return [
    `Pass keys hidden in ${count(tokens)} tokens, read back from a memory of constant size`,
    '',
    `  text      ${name}: ${count(characters)} characters${rounds}; one character is one token`,
    `  hidden    ${needles} pass keys of ${digits} digits, drawn with --seed ${seed}`,
    `  stream    ${heads} heads, keys of ${headDim}, values of ${valueDim}, segments of ${segment}, rule ${rule}, float32`,
    '  features  q, k and v are written by hand, not learned: v codes the next character, k stays shut (sigma = 4e-18)',
    '            but after a marker phrase. A trained model has to learn to select so; this shows what the memory then does.',
    '',
  ].join('\n');
}

export function report(result: DemoResult): string {
  return [recall(result), '', verdict(result), '', speed(result)].join('\n');
}

function recall({ needles, marker, otherMarker, scores, settings }: DemoResult): string {
  const heading = [
    'depth',
    'token',
    `${marker.trimEnd()} …`,
    'hidden',
    ...READINGS.map((reading) => TITLES[reading]),
  ];
  const rows = needles.map((needle) => {
    const mark = needle.read.memory === needle.key ? 'recalled' : 'FAILED';
    const read = READINGS.map((reading) => needle.read[reading]);
    read[0] += ` ${mark}`;
    return [percent(needle.depth), count(needle.token), needle.label, needle.key, ...read];
  });
  const right = (reading: Reading) => `${scores[reading].digitsRight} of ${scores[reading].digits}`;
  const total = ['', '', 'digits right', '', ...READINGS.map(right)];
  return [
    'Recall by depth, from retrieveSync alone: no text and no key-value cache is in reach',
    '',
    table([heading, ...rows, total], '>><<<<<<'),
    '',
    '  Controls:  never told     the same text streamed without the sentences',
    '             reset          a fork of this stream, its memory emptied before reading',
    `             other marker   asked with another document's phrase, "${otherMarker.trimEnd()} …"`,
    `  A guess is right for ${percent(CHANCE)} of the digits: ${(CHANCE * settings.needles * settings.digits).toFixed(1)} of ${scores.memory.digits}.`,
  ].join('\n');
}

function verdict({ recalled, controlsAtChance, scores, opened, settings }: DemoResult): string {
  const { keysRight, keys } = scores.memory;
  const expected = settings.needles * settings.digits;
  const failing = READINGS.filter((reading) => reading !== 'memory' && scores[reading].byChance <= ALARM);
  return [
    `  ${recalled ? 'Recalled' : 'RECALL FAILED'}: ${keysRight} of ${keys} pass keys.`,
    controlsAtChance
      ? '  Controls: all at chance.'
      : `  CONTROL FAILED: ${failing.map((reading) => TITLES[reading]).join(', ')} above chance, so the recall proves nothing.`,
    `  Keys opened: ${opened.document} (${expected} by the hidden sentences), ${opened.withoutSentences} by the text without them.`,
  ].join('\n');
}

function speed({ times, bytes: held, settings, device, needles }: DemoResult): string {
  const change = times.lastTenth / times.firstTenth - 1;
  const threads = 'threads' in device ? `, ${plural(Number(device.threads), 'thread')}, ${device.simd}` : '';
  const rows = [
    [
      'speed',
      `${count(times.tokensPerSecond)} tokens/s (${times.tokens.toLocaleString('en-US')} tokens in ${times.seconds.toFixed(1)} s)`,
    ],
    [
      'time per token',
      `${times.firstTenth.toFixed(2)} µs in the first tenth, ${times.lastTenth.toFixed(2)} µs in the last (${signed(change)})`,
    ],
    [
      'stream holds',
      `${bytes(held.atStart)} at the start, ${bytes(held.stream)} at the end; ${bytes(held.memory)} of it are M and z`,
    ],
    [
      'a cache would hold',
      `${bytes(held.keyValueCache)} by now: (d_k + d_v) x heads x tokens x 4 bytes, ${count(held.keyValueCache / held.stream)} times as much`,
    ],
    ['process', `${bytes(times.rssAtTenth)} resident after a tenth, ${bytes(times.rssAtEnd)} at the end`],
    ['device', `${device.id}: ${device.name}${threads}`],
    ['to repeat', `--seed ${settings.seed} --tokens ${settings.tokens} --needles ${needles.length}`],
  ];
  return ['Speed and memory', '', table(rows, '<<')].join('\n');
}

const signed = (share: number): string => `${share < 0 ? '-' : '+'}${percent(Math.abs(share))}`;
