import { readFileSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type ModelInput, readInput, type Vocabulary } from '../../lib/model/input';
import { Tokenizer } from '../../lib/model/tokenizer';
import { Rng } from '../support/rng';

const root = path.join(__dirname, '../..');
const json = readFileSync(path.join(root, 'models/passkey-linear/tokenizer.json'), 'utf8');
const tokenizer = Tokenizer.parse(json, 'tokenizer.json');
const vocabulary: Vocabulary = { size: 278, tokenizer };
const novel = gunzipSync(readFileSync(path.join(root, 'lib/cli/text/moby-dick.txt.gz'))).toString();

async function tokensOf(input: unknown, of = vocabulary): Promise<number[]> {
  const tokens: number[] = [];
  for await (const piece of readInput(input as ModelInput, of, 'input').pieces) {
    for (const token of piece) tokens.push(token);
  }
  return tokens;
}

async function* cutAtRandom(text: string, most: number, seed: number) {
  const rng = new Rng(seed);
  for (let at = 0; at < text.length; ) {
    const end = at + rng.int(0, most);
    yield text.slice(at, end);
    at = end;
  }
}

test('words of the task are one token each, everything else bytes', () => {
  const text = 'The grass is green. A wise whale, 1851: café\n';
  const tokens = tokenizer.encode(text);
  expect(tokenizer.decode(tokens)).toBe(text);
  const byte = (character: string) => tokenizer.encode(character)[0] as number;
  const spelled = (word: string) => [...word].map(byte);
  expect(tokens.slice(4)).toEqual([
    ...spelled('. A wise whale, 1851: caf'),
    ...tokenizer.encode('é'),
    byte('\n'),
  ]);
  expect(tokenizer.encode('é')).toHaveLength(2);
  expect(new Set(tokens.slice(0, 4)).size).toBe(4);
  expect(Math.min(...tokens.slice(0, 4))).toBeGreaterThanOrEqual(256);
});

test('digits are tokens of their own, and so is the space before them', () => {
  const [space] = tokenizer.encode(' ');
  const digits = [...'40213'].map((digit) => tokenizer.encode(digit)[0]);
  expect(tokenizer.encode(' 40213')).toEqual([space, ...digits]);
});

test('a text that is cut to be tokenized gives the tokens of the whole', async () => {
  expect(tokenizer.cuttable).toBe(true);
  const text = novel.slice(0, 40_000);
  const whole = tokenizer.encode(text);
  expect(await tokensOf(text)).toEqual(whole);
  expect(await tokensOf(cutAtRandom(text, 900, 1))).toEqual(whole);
  expect(await tokensOf(cutAtRandom(text.slice(0, 5000), 7, 2))).toEqual(
    tokenizer.encode(text.slice(0, 5000)),
  );
});

test('spaces, lines, marks and other scripts at the places where texts are cut', async () => {
  const pieces = [
    ' a',
    '  b',
    '\n c',
    '\n\n  d',
    ' .',
    '. e',
    ' 7',
    '7 f',
    "'s g",
    ' é',
    ' 漢 字',
    ' 😀 h',
    '\t i',
    'j ',
  ];
  const rng = new Rng(4);
  const text = Array.from({ length: 10_000 }, () => pieces[rng.int(0, pieces.length - 1)]).join('');
  expect(await tokensOf(text)).toEqual(tokenizer.encode(text));
});

test('a text without a place to cut waits for one', async () => {
  const text = 'x'.repeat(9000) + ' y'.repeat(4000) + '1'.repeat(9000);
  expect(await tokensOf(cutAtRandom(text, 2000, 3))).toEqual(tokenizer.encode(text));
});

test('texts and ids may alternate', async () => {
  async function* both() {
    yield ' The gr';
    yield 'ass';
    yield [1, 2];
    yield ' The gr';
    yield Int32Array.of(3);
    yield 'ass';
  }
  expect(await tokensOf(both())).toEqual([
    ...tokenizer.encode(' The grass'),
    1,
    2,
    ...tokenizer.encode(' The gr'),
    3,
    ...tokenizer.encode('ass'),
  ]);
});

test('the source is let go when reading stops', async () => {
  let stopped = false;
  async function* endless() {
    try {
      for (;;) yield 'word '.repeat(1000);
    } finally {
      stopped = true;
    }
  }
  for await (const _ of readInput(endless(), vocabulary, 'input').pieces) break;
  expect(stopped).toBe(true);
});

test('what a source yields is checked', async () => {
  async function* bad() {
    yield 5 as unknown as string;
  }
  await expect(tokensOf(bad())).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
  const small = { size: 100, tokenizer };
  await expect(tokensOf('The', small)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
});

test.each([
  ['no JSON', '{'],
  ['no object', '1'],
  ['no model', '{"version":"1.0"}'],
  ['an unknown model', '{"model":{"type":"Magic","vocab":{}}}'],
])('a tokenizer.json with %s is refused', (_, text) => {
  expect(() => Tokenizer.parse(text, 'tokenizer.json')).toThrow(
    expect.objectContaining({ code: 'ERR_MODEL', message: expect.stringContaining('tokenizer.json') }),
  );
});

test('a tokenizer with a prefix space is not cut', () => {
  const other = JSON.parse(json) as { pre_tokenizer: { pretokenizers: { add_prefix_space?: boolean }[] } };
  (other.pre_tokenizer.pretokenizers[1] as { add_prefix_space: boolean }).add_prefix_space = true;
  expect(Tokenizer.parse(JSON.stringify(other), 'x').cuttable).toBe(false);
});
