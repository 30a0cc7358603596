import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadModel, type Model, Session } from '../../lib';
import { Haystack, hide } from '../../lib/cli/passkey/haystack';
import { type Identity, Ledger } from '../../lib/cli/passkey/ledger';
import { DEPTHS, drawQuestions } from '../../lib/cli/passkey/questions';
import { Reader } from '../../lib/cli/passkey/reading';
import { htmlReport, textReport } from '../../lib/cli/passkey/report';
import { keysOf, read, runTable, type TableSettings } from '../../lib/cli/passkey/run';
import { controlOf, summarise } from '../../lib/cli/passkey/summary';
import { Task } from '../../lib/cli/passkey/task';
import { wilson } from '../../lib/cli/passkey/wilson';
import { writePasskeyModel } from './passkey-model';

const folder = mkdtempSync(path.join(os.tmpdir(), 'infini-stream-'));
const file = (name: string) => path.join(folder, name);
const signal = new AbortController().signal;
const identity: Identity = { 'SHA-256 of model.safetensors': 'abc', version: '1', device: 'cpu', seed: 5 };
const settings: TableSettings = {
  lengths: [2048, 3000],
  depths: [...DEPTHS],
  keys: 3,
  haystack: 'filler',
  seed: 5,
};
const models: Model[] = [];

beforeAll(async () => {
  for (const rule of ['linear', 'delta'] as const) {
    await writePasskeyModel(file(rule), { rule, seed: 4 });
    models.push(await loadModel(file(rule), { device: 'cpu' }));
  }
});

afterAll(() => {
  for (const model of models) model.close();
  rmSync(folder, { recursive: true });
});

async function whole(ledger: Ledger, model = models[0]) {
  await runTable(model, settings, ledger, { signal });
  return summarise(ledger, settings, new Task(model), model.config.rule);
}

/** What must not depend on how the work was cut. */
const answersOf = ({ rows }: ReturnType<typeof summarise>) =>
  rows.map(({ length, cells, noKey, reset }) => ({ length, cells, noKey, reset }));

describe('shared beginnings', () => {
  test.each([
    ['linear', 'filler'],
    ['delta', 'filler'],
    ['linear', 'english'],
  ] as const)(
    'leave every logit of the %s rule in %s as it is in a document that is fed whole',
    async (rule, name) => {
      const model = models[rule === 'linear' ? 0 : 1];
      const task = new Task(model);
      const haystack = Haystack.named(name, model);
      const reader = new Reader(model, task, signal, () => {});
      const stop = (length: number, keys: number) => ({ length, asked: length - task.asking, keys });
      const groups = [
        { depth: 'start' as const, stops: [stop(2048, 4), stop(2600, 2), stop(3001, 3)] },
        { depth: 'middle' as const, stops: [stop(2600, 3)] },
        { depth: 'end' as const, stops: [stop(3001, 3)] },
      ];
      using base = model.createSession();
      for (const { depth, stops } of groups) {
        const questions = drawQuestions(haystack, task, { depth, length: stops[0].length }, 4, 2);
        const seen: [number, number][] = [];
        for await (const { length, readings } of read(reader, base, haystack, { depth, questions, stops })) {
          seen.push([length, readings.length]);
          for (const [i, { session }] of readings.entries()) {
            const { statement, place } = questions[i];
            const tokens = [
              ...hide(haystack, statement, place).slice(0, length - task.asking),
              ...task.question,
            ];
            using alone = model.createSession();
            await alone.feed(tokens);
            using asked = session.fork();
            await asked.feed(task.question);
            expect(asked.tokens).toBe(length - 5);
            expect(bits(asked)).toBe(bits(alone));
            const [answer] = await reader.ask([session]);
            expect(answer).toEqual((await alone.generate({ maxTokens: 5 })).tokens);
            expect(alone.tokens).toBe(length);
          }
        }
        expect(seen).toEqual(stops.map(({ length, keys }) => [length, keys]));
      }
    },
  );

  const bits = (session: Session) => Buffer.from(session.logits().buffer).toString('hex');
});

describe('the table', () => {
  test('asks every key of every cell, and counts what it feeds', async () => {
    const ledger = Ledger.open(undefined, identity);
    let planned = 0;
    let fed = 0;
    await runTable(models[0], settings, ledger, {
      signal,
      onStart: (tokens) => (planned = tokens),
      onProgress: (tokens) => (fed = tokens),
    });
    expect(fed).toBe(planned);
    const { rows, total, controlsAtChance } = summarise(ledger, settings, new Task(models[0]), 'linear');
    expect(total.fed).toBe(planned);
    // Whole documents would be 18 times 2,048 or 3,000 tokens.
    expect(planned).toBeLessThan(9 * 5048 * 0.8);
    expect(controlsAtChance).toBe(true);
    expect(rows.map(({ length, keys, cells }) => [length, keys, cells.map(({ depth }) => depth)])).toEqual([
      [2048, 3, DEPTHS],
      [3000, 3, DEPTHS],
    ]);
    const task = new Task(models[0]);
    const haystack = Haystack.named('filler', models[0]);
    for (const { length, cells, noKey, reset } of rows) {
      for (const { depth, answers, accuracy } of cells) {
        const drawn = drawQuestions(haystack, task, { depth, length }, 3, 5);
        expect(answers.map(({ key, place }) => ({ key, place }))).toEqual(
          drawn.map(({ key, place }) => ({ key, place })),
        );
        expect(accuracy).toBeCloseTo(answers.reduce((sum, { right }) => sum + right, 0) / 15, 12);
      }
      expect([noKey.digits, reset.digits]).toEqual([45, 45]);
    }
  });

  test('asks its controls of sessions without the key', async () => {
    const { rows } = await whole(Ledger.open(undefined, identity));
    const task = new Task(models[0]);
    using empty = models[0].createSession();
    await empty.feed(task.question);
    const forgotten = (await empty.generate({ maxTokens: 5 })).text;
    for (const { length, cells, noKey } of rows) {
      for (const { answers } of cells) for (const { reset } of answers) expect(reset.read).toBe(forgotten);
      using untold = models[0].createSession();
      await untold.feed(Haystack.named('filler', models[0]).slice(0, length - task.asking));
      await untold.feed(task.question);
      expect((await untold.generate({ maxTokens: 5 })).text).toBe(noKey.read);
    }
  });

  test('has 40 keys up to 256K and 20 above, unless it is told', () => {
    const lengths = [2048, 256 << 10, (256 << 10) + 1, 1 << 20];
    expect(lengths.map((length) => keysOf({ keys: undefined }, length))).toEqual([40, 40, 20, 20]);
    expect(lengths.map((length) => keysOf({ keys: 7 }, length))).toEqual([7, 7, 7, 7]);
  });
});

describe('--resume', () => {
  test('goes on after an interruption, with the same answers', async () => {
    const expected = answersOf(await whole(Ledger.open(undefined, identity)));
    const resume = file('resume.json');
    const controller = new AbortController();
    const first = Ledger.open(resume, identity);
    const interrupted = runTable(models[0], settings, first, {
      signal: controller.signal,
      onProgress: () => first.size >= 2 && controller.abort(),
    });
    await expect(interrupted).rejects.toMatchObject({ code: 'ABORT_ERR' });

    const kept = JSON.parse(readFileSync(resume, 'utf8'));
    const second = Ledger.open(resume, identity);
    expect(second.size).toBe(2);
    let planned = 0;
    await runTable(models[0], settings, second, { signal, onStart: (tokens) => (planned = tokens) });
    expect(planned).toBeLessThan(20_000);
    const summary = summarise(second, settings, new Task(models[0]), 'linear');
    expect(answersOf(summary)).toEqual(expected);
    expect(JSON.parse(readFileSync(resume, 'utf8')).cells.slice(0, 2)).toEqual(kept.cells);

    await runTable(models[0], settings, Ledger.open(resume, identity), {
      signal,
      onStart: (tokens) => expect(tokens).toBe(0),
    });
  });

  test.each([0, 1])('closes all sessions, finished or not (%d)', async (stopAt) => {
    const opened: Session[] = [];
    const controller = new AbortController();
    const { fork } = Session.prototype;
    const spy = jest.spyOn(Session.prototype, 'fork').mockImplementation(function (this: Session) {
      opened.push(fork.call(this));
      return opened[opened.length - 1];
    });
    const ledger = Ledger.open(undefined, identity);
    try {
      await runTable(models[0], settings, ledger, {
        signal: controller.signal,
        onProgress: () => ledger.size === stopAt && stopAt > 0 && controller.abort(),
      }).catch((error) => expect(error.code).toBe('ABORT_ERR'));
    } finally {
      spy.mockRestore();
    }
    expect(ledger.size).toBe(stopAt || 6);
    expect(opened.length).toBeGreaterThan(3);
    expect(opened.filter(({ closed }) => !closed)).toEqual([]);
  });

  test('refuses what is of another table', async () => {
    const resume = file('other.json');
    await whole(Ledger.open(resume, identity));
    expect(() => Ledger.open(resume, { ...identity, seed: 6 })).toThrow(
      /other\.json is of another table: its seed is 5, not 6/,
    );
    const hash = { 'SHA-256 of model.safetensors': 'abd' };
    expect(() => Ledger.open(resume, { ...identity, ...hash })).toThrow(
      /SHA-256 of model\.safetensors is abc/,
    );
    expect(() => Ledger.open(resume, { ...identity, haystack: 'english' })).toThrow(/not english/);
    const more = { ...settings, keys: 4 };
    await expect(runTable(models[0], more, Ledger.open(resume, identity), { signal })).rejects.toThrow(
      /start of 2048 tokens has 3 keys, not 4/,
    );
    for (const text of ['', '{', 'null', '[]', '{"passkey":2}']) {
      writeFileSync(resume, text);
      expect(() => Ledger.open(resume, identity)).toThrow(/other\.json (is no table|can not be read)/);
    }
  });
});

describe('figures', () => {
  test.each([
    [0.5, 10, 0.2366, 0.7634],
    [1, 40, 0.9124, 1],
    [0, 20, 0, 0.1611],
    [0.9, 10, 0.5958, 0.9821],
    [0.2, 100, 0.1334, 0.2888],
  ])('Wilson: %d of %d', (share, n, low, high) => {
    const [from, to] = wilson(share, n);
    expect(from).toBeCloseTo(low, 4);
    expect(to).toBeCloseTo(high, 4);
  });

  test('a control is at chance up to 30 %, and above it only where guessing gets there', () => {
    expect(controlOf([1, 0, 0, 1])).toMatchObject({ digits: 20, right: 2, accuracy: 0.1, atChance: true });
    expect(controlOf(new Array(40).fill(1.5)).atChance).toBe(true); // 30 %
    expect(controlOf([...new Array(39).fill(1.5), 2.5]).atChance).toBe(false);
    expect(controlOf([2]).atChance).toBe(true); // 40 % of five digits
    expect(controlOf([5]).atChance).toBe(false);
  });

  test('reports show what there is, and call a failed control so', async () => {
    const ledger = Ledger.open(undefined, identity);
    const summary = await whole(ledger);
    const result = {
      date: '2025-01-01T00:00:00.000Z',
      version: '1',
      node: 'v20',
      cpu: '<script>alert("cpu")</script>',
      device: models[0].device.info,
      model: { name: '<b>&c', rule: 'linear', sha256: { 'model.safetensors': 'f'.repeat(64) } },
      settings,
      stateBytes: 12_345,
      ...summary,
    };
    const text = textReport(result);
    expect(text).toMatch(/^ +2K +3 +\d+\.\d +\[/m);
    expect(text).toMatch(/^ +3,000 +3 /m);
    expect(text).toMatch(/no key +reset/);
    expect(text).not.toContain('FAILED');
    const html = htmlReport(result);
    expect(html).toContain('&lt;script&gt;alert(&quot;cpu&quot;)&lt;/script&gt;');
    expect(html).not.toContain('<script');
    expect(html).toContain('&lt;b&gt;&amp;c');
    expect(html.match(/(src|href)=/g)).toBeNull();

    const leaking = ledger.cell({ depth: 'end', length: 3000 }, 3)?.answers ?? [];
    for (const answer of leaking) answer.reset = { read: answer.key, right: 5 };
    const failed = { ...result, ...summarise(ledger, settings, new Task(models[0]), 'linear') };
    expect(failed.controlsAtChance).toBe(false);
    expect(textReport(failed)).toMatch(/\d FAILED .*\n[\s\S]*CONTROL FAILED/);
    expect(htmlReport(failed)).toContain('CONTROL FAILED');
  });

  test("the paper's figures stand beside its lengths", async () => {
    const ledger = Ledger.open(undefined, identity);
    const answers = [{ key: '12345', place: 0, read: '12345', right: 5, reset: { read: '', right: 0 } }];
    const lengths = [32 << 10, 64 << 10, 1 << 20];
    const cost = { fed: 1, seconds: 1 };
    for (const length of lengths) {
      ledger.addUntold({ length, tokens: [], read: '', ...cost });
      for (const depth of DEPTHS) ledger.addCell({ depth, length, answers, ...cost });
    }
    const papers = (rule: 'linear' | 'delta') =>
      summarise(ledger, { ...settings, lengths, keys: 1 }, new Task(models[0]), rule).rows.map(({ cells }) =>
        cells.map(({ paper }) => paper),
      );
    expect(papers('linear')).toEqual([
      [1, 1, 1],
      [null, null, null],
      [0.96, 0.94, 1],
    ]);
    expect(papers('delta')).toEqual([
      [1, 1, 1],
      [null, null, null],
      [1, 1, 1],
    ]);
  });
});
