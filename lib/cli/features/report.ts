import { bytes, count, percent, plural, table } from '../format';
import { ALARM, CHANCE } from '../score';
import { type FeatureResult, READINGS, type Reading } from './run';

const TITLES: Record<Reading, string> = {
  memory: 'memory',
  noKeys: 'untold',
  reset: 'reset',
  otherMarker: 'other',
};

/** What is about to happen, printed before the long part. */
export function introduction(name: string, characters: number, settings: FeatureResult['settings']): string {
  const { tokens, seed, needles, digits, heads, headDim, valueDim, segment, rule } = settings;
  const rounds = tokens / characters;
  const again = rounds > 1 ? [`            too short, so it is read ${rounds.toFixed(1)} times over`] : [];
  return [
    `Pass keys hidden in ${count(tokens)} tokens, read back from a memory of constant size`,
    '',
    `  text      ${name}`,
    `            ${count(characters)} characters; one character is one token`,
    ...again,
    `  hidden    ${plural(needles, 'pass key')} of ${plural(digits, 'digit')}, drawn with --seed ${seed}`,
    `  stream    ${plural(heads, 'head')}, keys of ${headDim}, values of ${valueDim}, segments of ${segment}, rule ${rule}`,
    '  features  q, k and v are written by hand, not learned: v codes the next',
    '            character, k stays shut (sigma = 4e-18) but after a marker phrase.',
    '            A model must learn to select so; this shows what memory then does.',
    '',
  ].join('\n');
}

export function report(result: FeatureResult): string {
  return [recall(result), '', verdict(result), '', speed(result)].join('\n');
}

function recall({ needles, marker, otherMarker, scores, settings }: FeatureResult): string {
  const heading = ['depth', 'token', 'key to the', 'hidden', ...READINGS.map((reading) => TITLES[reading])];
  const rows = needles.map((needle) => {
    const read = READINGS.map((reading) => needle.read[reading]);
    read[0] += needle.read.memory === needle.key ? ' recalled' : ' FAILED';
    return [
      percent(Math.floor(1000 * needle.depth) / 1000),
      count(needle.token),
      needle.label,
      needle.key,
      ...read,
    ];
  });
  const right = (reading: Reading) => `${scores[reading].digitsRight}/${scores[reading].digits}`;
  const total = ['', '', 'digits right', '', ...READINGS.map(right)];
  const guessed = (CHANCE * settings.needles * settings.digits).toFixed(1);
  return [
    'Recall by depth, through the memory alone (retrieveSync)',
    '',
    table([heading, ...rows, total], '>><<<<<<'),
    '',
    `  asked     "${marker}… is "`,
    '  untold    a second stream: the same text without the sentences',
    '  reset     a fork of this stream, its memory emptied before reading',
    `  other     "${otherMarker}… is ", of another document`,
    `  chance    a guess is right for ${percent(CHANCE)} of the digits: ${guessed} of ${scores.memory.digits}`,
  ].join('\n');
}

function verdict({ recalled, controlsAtChance, scores, opened, settings }: FeatureResult): string {
  const { keysRight, keys } = scores.memory;
  const told = settings.needles * settings.digits;
  const failing = READINGS.filter((reading) => reading !== 'memory' && scores[reading].byChance <= ALARM);
  return [
    `  ${recalled ? 'Recalled' : 'RECALL FAILED'}: ${keysRight} of ${plural(keys, 'pass key')}.`,
    controlsAtChance
      ? '  Controls: all at chance.'
      : `  CONTROL FAILED: ${failing.map((reading) => TITLES[reading]).join(', ')} above chance, so the recall proves nothing.`,
    `  Keys opened: ${opened.document}, of which ${told} by the sentences; without them ${opened.withoutSentences}.`,
  ].join('\n');
}

function speed({ times, bytes: held, settings, device }: FeatureResult): string {
  const { firstTenth: first, lastTenth: last } = times;
  const change = (clock: 'wall' | 'processor') => signed(last[clock] / first[clock] - 1);
  const threads = device.threads === undefined ? '' : `, ${plural(device.threads, 'thread')}, ${device.simd}`;
  const rows = [
    ['device', `${device.id}: ${device.name}${threads}`],
    [
      'speed',
      `${count(times.tokensPerSecond)} tokens/s: ${count(times.tokens)} tokens in ${times.seconds.toFixed(1)} s`,
    ],
    [
      'per token',
      `first tenth of the text ${micros(first.wall)}, last tenth ${micros(last.wall)} (${change('wall')})`,
    ],
    [
      '',
      `processor time          ${micros(first.processor)},            ${micros(last.processor)} (${change('processor')})`,
    ],
    [
      'stream',
      `${bytes(held.atStart)} at the start, ${bytes(held.stream)} at the end (M and z: ${bytes(held.memory)})`,
    ],
    [
      'a cache',
      `would hold ${bytes(held.keyValueCache)} by now, ${count(held.keyValueCache / held.stream)} times as much:`,
    ],
    ['', '(d_k + d_v) x heads x tokens x 4 bytes'],
    ['process', `${bytes(times.rssAtTenth)} resident after a tenth, ${bytes(times.rssAtEnd)} at the end`],
    ['repeat', `--features --seed ${settings.seed} --tokens ${settings.tokens}`],
  ];
  return ['Speed and memory', '', table(rows, '<<')].join('\n');
}

const micros = (value: number): string => `${value.toFixed(1)} µs`;
const signed = (share: number): string => `${share < 0 ? '-' : '+'}${percent(Math.abs(share))}`;
