import path from 'node:path';
import { loadModel } from '../../lib';
import { DEVICE_ID } from '../support/device';
import { caught, code, draw, expectSame, useTinyModel } from './sessions';

const tiny = useTinyModel();

describe('generate', () => {
  test('is what the logits say, greedily, and continues the session', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(9));
    using twin = session.fork();
    const { tokens, text, finish } = await session.generate({ maxTokens: 12 });
    expect([tokens.length, text, finish]).toEqual([12, '', 'length']);
    expect(session.tokens).toBe(21);
    for (const token of tokens) {
      const logits = twin.logits();
      expect(token).toBe(logits.indexOf(Math.max(...logits)));
      await twin.feed([token]);
    }
    expectSame(twin.logits(), session.logits());
  });

  test('the same seed draws the same tokens, another one others', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(9));
    const drawn = await Promise.all(
      [1, 1, 2].map(async (seed) => {
        using fork = session.fork();
        return (await fork.generate({ maxTokens: 60, temperature: 2, seed })).tokens;
      }),
    );
    expect(drawn[1]).toEqual(drawn[0]);
    expect(drawn[2]).not.toEqual(drawn[0]);
  });

  test('topK 1 is greedy at any temperature', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(9));
    using fork = session.fork();
    const { tokens } = await fork.generate({ maxTokens: 20, temperature: 5, topK: 1 });
    expect(tokens).toEqual((await session.generate({ maxTokens: 20 })).tokens);
  });

  test('stops before a stop token, which the session has not taken', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(9));
    using fork = session.fork();
    const { tokens } = await fork.generate({ maxTokens: 20 });
    const stop = tokens[7] as number;
    const at = tokens.indexOf(stop);
    const result = await session.generate({ maxTokens: 20, stop: [stop] });
    expect(result.finish).toBe('stop');
    expect(result.tokens).toEqual(tokens.subarray(0, at));
    expect(session.tokens).toBe(9 + at);
  });

  test('can be iterated over, and left', async () => {
    using session = tiny.model.createSession();
    await session.feed(draw(9));
    using fork = session.fork();
    const { tokens } = await fork.generate({ maxTokens: 5 });
    const seen: number[] = [];
    for await (const { token } of session.generate({ maxTokens: 100 })) {
      seen.push(token);
      if (seen.length === 5) break;
    }
    expect(seen).toEqual([...tokens]);
    expect(session.tokens).toBe(14);
    expectSame(session.logits(), fork.logits());
  });

  test('what failed or was left says so when it is awaited later', async () => {
    using session = tiny.model.createSession();
    await session.feed([1]);
    const controller = new AbortController();
    const aborted = session.generate({ maxTokens: 5, signal: controller.signal });
    const iterate = async () => {
      for await (const _ of aborted) controller.abort();
    };
    expect(await caught(iterate)).toEqual(code('ABORT_ERR'));
    expect(await caught(() => aborted)).toEqual(code('ABORT_ERR'));
    const left = session.generate({ maxTokens: 5 });
    for await (const _ of left) break;
    expect(await left).toMatchObject({ finish: 'left', tokens: { length: 1 } });
  });

  test('a stop text is never shown, nor what may become one', async () => {
    using trained = await loadModel(path.join(__dirname, '../../models/passkey-linear'), {
      device: DEVICE_ID,
    });
    using session = trained.createSession();
    await session.feed(
      'The pass key is 90218. Remember it. 90218 is the pass key. What is the pass key? The pass key is ',
    );
    using twin = session.fork();
    using third = session.fork();
    const { text } = await twin.generate({ maxTokens: 5 });
    expect(text).toBe('90218');
    const stop = ['8', '218', '02x'];
    let shown = '';
    for await (const { text: piece } of session.generate({ maxTokens: 5, stop })) shown += piece;
    const result = await third.generate({ maxTokens: 5, stop });
    expect([shown, result.text, result.finish]).toEqual(['90', '90', 'stop']);
  });

  test('generates nothing when nothing is asked for', async () => {
    using session = tiny.model.createSession();
    await session.feed([1]);
    const { tokens, finish } = await session.generate({ maxTokens: 0 });
    expect([tokens.length, finish, session.tokens]).toEqual([0, 'length', 1]);
  });

  test('needs tokens', async () => {
    using session = tiny.model.createSession();
    expect(await caught(() => session.generate({ maxTokens: 1 }))).toEqual(code('ERR_OUT_OF_RANGE'));
    expect(await caught(() => tiny.model.generateAll([session], { maxTokens: 1 }))).toEqual(
      code('ERR_OUT_OF_RANGE'),
    );
    expect(() => session.logits()).toThrow(code('ERR_OUT_OF_RANGE'));
  });

  test.each<[unknown, string]>([
    [undefined, 'ERR_INVALID_ARG_TYPE'],
    [{}, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1.5 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: '1' }, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: 1, temperature: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, temperature: Number.NaN }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, topK: 0 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, seed: 2 ** 32 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, stop: 24 }, 'ERR_OUT_OF_RANGE'],
    [{ maxTokens: 1, stop: 'x' }, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: 1, stop: {} }, 'ERR_INVALID_ARG_TYPE'],
    [{ maxTokens: 1, what: 1 }, 'ERR_INVALID_ARG_TYPE'],
  ])('refuses %p', async (options, wanted) => {
    using session = tiny.model.createSession();
    await session.feed([1]);
    expect(await caught(() => session.generate(options as { maxTokens: number }))).toEqual(code(wanted));
    expect(session.tokens).toBe(1);
  });

  test('an abort keeps the tokens generated until then', async () => {
    using session = tiny.model.createSession();
    await session.feed([1]);
    const controller = new AbortController();
    const run = async () => {
      for await (const _ of session.generate({ maxTokens: 1000, signal: controller.signal })) {
        if (session.tokens === 6) controller.abort();
      }
    };
    expect(await caught(run)).toEqual(code('ABORT_ERR'));
    expect(session.tokens).toBe(6);
  });
});
