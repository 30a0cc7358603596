import { type Plan, Transcript } from '../../lib/model/generate';
import type { SessionCore } from '../../lib/model/session-core';

/** A letter is a token. */
const tokenizer = { decode: (tokens: number[]) => String.fromCharCode(...tokens) };
const session = { model: { vocabulary: { tokenizer } } } as unknown as SessionCore;

test.each(['needle', 'n'])(
  'the stop text %j is found wherever it begins, and nothing behind it is said',
  (stop) => {
    const plan = { maxTokens: 1000, stopTexts: [stop, 'never'], stopTokens: new Set() } as unknown as Plan;
    for (let before = 0; before < 100; before++) {
      const transcript = new Transcript(session, plan);
      let said = '';
      for (const letter of `${'o'.repeat(before)}${stop}`) {
        expect(transcript.finish).toBeUndefined();
        said += transcript.add(letter.charCodeAt(0)).text;
      }
      expect(transcript.result()).toMatchObject({ text: 'o'.repeat(before), finish: 'stop' });
      expect(said).toBe(transcript.text);
    }
  },
);
