import { readFileSync } from 'node:fs';
import path from 'node:path';
import { loadModel } from '../../lib';
import { DEVICE_ID } from '../support/device';

interface Case {
  tokens: number[];
  places: number[];
  logits: number[][];
}

// Written by train/fixture.py from the same weights, in float64.
test.each(['passkey-linear', 'passkey-delta'])('%s says what PyTorch says', async (name) => {
  const cases = JSON.parse(readFileSync(path.join(__dirname, `fixtures/${name}.json`), 'utf8')) as Case[];
  expect(cases.length).toBeGreaterThan(2);
  using model = await loadModel(path.join(__dirname, '../../models', name), { device: DEVICE_ID });
  for (const { tokens, places, logits } of cases) {
    using session = model.createSession();
    let worst = 0;
    let largest = 0;
    for (const [i, place] of places.entries()) {
      await session.feed(tokens.slice(session.tokens, place + 1));
      const actual = session.logits();
      expect(actual.length).toBe(logits[i]?.length);
      for (const [token, wanted] of (logits[i] as number[]).entries()) {
        worst = Math.max(worst, Math.abs((actual[token] as number) - wanted));
        largest = Math.max(largest, Math.abs(wanted));
      }
    }
    expect(largest).toBeGreaterThan(1);
    expect(worst / largest).toBeLessThan(1e-4);
  }
});
