import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { loadModel, type Model } from '../../lib';
import { Haystack, hide, sentencesOf } from '../../lib/cli/passkey/haystack';
import { DEPTHS, drawQuestions, LEAST_LENGTH } from '../../lib/cli/passkey/questions';
import { FILLER, QUESTION, statementOf, Task } from '../../lib/cli/passkey/task';
import { loadText } from '../../lib/cli/source';
import { writePasskeyModel } from './passkey-model';

const STATEMENT = 'The pass key is 40712. Remember it. 40712 is the pass key.';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
let model: Model;

beforeAll(async () => {
  await writePasskeyModel(folder);
  model = await loadModel(folder, { device: 'cpu' });
});

afterAll(() => {
  model.close();
  rmSync(folder, { recursive: true });
});

describe('the task', () => {
  test('has the words of the paper', () => {
    expect(statementOf('40712')).toBe(STATEMENT);
    expect(QUESTION).toBe('What is the pass key? The pass key is ');
    expect(FILLER.join(' ')).toBe(
      'The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.',
    );
  });

  test('is made of whole words and single digits', () => {
    const task = new Task(model);
    expect(task.question).toHaveLength(11); // What is the pass key ? The pass key is, and a space
    expect(task.asking).toBe(16);
    expect(task.statement('40712', 7)).toHaveLength(25);
    expect(model.decode(task.statement('40712', 7))).toBe(` ${STATEMENT}`);
    expect(model.decode(task.statement('40712', 0))).toBe(STATEMENT);
  });

  test('counts the digits that are right at their places', () => {
    const task = new Task(model);
    const right = (said: string) => task.right('40712', model.encode(said));
    expect(['40712', '40702', '04712', '4071', '24071', 'Remem', ''].map(right)).toEqual([
      5, 4, 3, 4, 0, 0, 0,
    ]);
  });

  test('refuses tokenizers that it can not be asked with', () => {
    const words = (text: string) => Int32Array.from(text.match(/\d+|./g) ?? [], (part) => part.charCodeAt(0));
    expect(() => new Task({ encode: words })).toThrow(/one token of each digit/);
    const prefixed = (text: string) => Int32Array.from(`\u2581${text}`, (letter) => letter.charCodeAt(0));
    expect(() => new Task({ encode: prefixed })).toThrow(/sentences one by one|each digit/);
  });
});

/** One token is one letter, so that a text can be compared with its tokens. */
const letters = { encode: (text: string) => Int32Array.from(text, (letter) => letter.charCodeAt(0)) };
const read = (tokens: Int32Array) => String.fromCharCode(...tokens);
const cycle = (sentences: readonly string[], length: number) =>
  `${sentences.join(' ')} `.repeat(Math.ceil(length / sentences.join(' ').length)).slice(0, length);

describe('the haystack', () => {
  test('is the sentences in a cycle', () => {
    expect(read(new Haystack(letters, FILLER).slice(0, 1000))).toBe(cycle(FILLER, 1000));
    expect(model.decode(Haystack.named('filler', model).slice(0, 500))).toBe(
      cycle(FILLER, 5000).slice(0, model.decode(Haystack.named('filler', model).slice(0, 500)).length),
    );
  });

  test('can be the novel, cut at ends of sentences', () => {
    const novel = loadText().text;
    const sentences = sentencesOf(novel);
    expect(sentences.join(' ') === novel).toBe(true);
    expect(Math.max(...sentences.map(({ length }) => length))).toBeLessThan(1025);
    const haystack = new Haystack(letters, sentences);
    expect(read(haystack.slice(0, 5000))).toBe(novel.slice(0, 5000));
    const end = novel.length;
    expect(read(haystack.slice(end - 50, end + 50))).toBe(`${novel} ${novel.slice(0, 49)}`.slice(end - 50));
    expect(model.decode(Haystack.named('english', model).slice(0, 3000))).toBe(
      novel.slice(0, model.decode(Haystack.named('english', model).slice(0, 3000)).length),
    );
  });

  test('knows where sentences begin', () => {
    const haystack = new Haystack(letters, ['One.', 'Two three.', 'Go.']);
    const text = read(haystack.slice(0, 100));
    for (let place = 0; place < 100; place++) {
      // The space belongs to the sentence behind it.
      expect([place, haystack.isBoundary(place)]).toEqual([place, place === 0 || text[place - 1] === '.']);
    }
  });

  test('hides a statement where it is told, whatever piece is asked for', () => {
    const haystack = new Haystack(letters, ['One.', 'Two three.', 'Go.']);
    const whole = cycle(['One.', 'Two three.', 'Go.'], 300);
    for (const place of [0, 4, 15, 19, 99]) {
      const statement = letters.encode(place === 0 ? 'Key 1.' : ' Key 1.');
      const text = hide(haystack, statement, place);
      const expected =
        place === 0 ? `Key 1. ${whole}` : `${whole.slice(0, place)} Key 1.${whole.slice(place)}`;
      expect(read(text.slice(0, 200))).toBe(expected.slice(0, 200));
      fc.assert(
        fc.property(fc.nat(200), fc.nat(60), (from, length) => {
          expect(read(text.slice(from, from + length))).toBe(expected.slice(from, from + length));
        }),
      );
    }
  });
});

describe.each(['filler', 'english'] as const)('questions in %s', (name) => {
  const draw = (depth: (typeof DEPTHS)[number], length: number, keys: number, seed = 1) =>
    drawQuestions(Haystack.named(name, model), new Task(model), { depth, length }, keys, seed);

  test.each([LEAST_LENGTH, 5000, 32 << 10])('are in their zones of %d tokens, at sentences', (length) => {
    const asked = length - new Task(model).asking;
    const haystack = Haystack.named(name, model);
    const zones = {
      start: [0, 511],
      middle: [length / 2 - 512, length / 2 + 512],
      end: [asked - 1024, asked],
    };
    for (const depth of DEPTHS) {
      const questions = draw(depth, length, 40);
      for (const { key, place, statement } of questions) {
        expect(key).toMatch(/^\d{5}$/);
        expect(model.decode(statement)).toBe(`${place === 0 ? '' : ' '}${statementOf(key)}`);
        const seen = depth === 'end' ? place + statement.length : place;
        expect(seen).toBeGreaterThanOrEqual(zones[depth][0]);
        expect(seen).toBeLessThanOrEqual(zones[depth][1]);
        expect(haystack.isBoundary(place)).toBe(true);
      }
      expect(new Set(questions.map(({ key }) => key)).size).toBeGreaterThan(35);
      expect(new Set(questions.map(({ place }) => place)).size).toBeGreaterThan(2);
      expect(questions[0].place === 0).toBe(depth === 'start');
    }
  });

  test('depend on the seed and their cell alone', () => {
    expect(draw('middle', 8192, 3)).toEqual(draw('middle', 8192, 9).slice(0, 3));
    expect(draw('start', 8192, 5)).toEqual(draw('start', 4096, 5));
    const keys = (...drawn: Parameters<typeof draw>) => draw(...drawn).map(({ key }) => key);
    const all = [
      keys('middle', 8192, 9),
      keys('middle', 4096, 9),
      keys('end', 8192, 9),
      keys('middle', 8192, 9, 2),
    ];
    expect(new Set(all.flat()).size).toBe(36);
  });
});

test('all digits are drawn', () => {
  const task = new Task(model);
  const questions = drawQuestions(
    Haystack.named('filler', model),
    task,
    { depth: 'end', length: 4096 },
    400,
    3,
  );
  for (const digit of '0123456789') {
    const share = questions.filter(({ key }) => key[0] === digit).length / 400;
    expect(share).toBeGreaterThan(0.05);
    expect(share).toBeLessThan(0.16);
  }
});
