import { drawPlan, hide, LABELS } from '../../lib/cli/features/document';
import { Random } from '../../lib/cli/random';
import { loadText, normalise, take } from '../../lib/cli/source';

const novel = loadText().text;

describe('the text', () => {
  test('ships with the package and is long enough', () => {
    expect(novel.length).toBeGreaterThan(1_200_000);
    expect(novel).toContain('Call me Ishmael.');
    expect(novel).not.toMatch(/\s\s|Gutenberg/);
  });

  test('white space is evened out', () => {
    expect(normalise('  a\r\n\n b\tc  ')).toBe('a b c');
  });

  test('a short text starts again', () => {
    expect(take('abc', 2)).toBe('ab');
    expect(take('abc', 10)).toBe('abc abc ab');
    expect(take('abc', 4)).toBe('abc ');
  });
});

describe('the document', () => {
  const plan = drawPlan(new Random(4), novel, 5, 5);

  test('a seed repeats a plan, another seed changes it', () => {
    expect(drawPlan(new Random(4), novel, 5, 5)).toEqual(plan);
    expect(drawPlan(new Random(5), novel, 5, 5)).not.toEqual(plan);
  });

  test('labels differ, keys are digits, markers are foreign to the text', () => {
    const all = drawPlan(new Random(1), novel, LABELS.length, 7);
    expect(new Set(all.secrets.map(({ label }) => label)).size).toBe(LABELS.length);
    for (const { key } of all.secrets) expect(key).toMatch(/^\d{7}$/);
    expect(all.marker).not.toBe(all.otherMarker);
    expect(novel).not.toContain(all.marker);
  });

  test('a marker that the text holds is not drawn', () => {
    const drawn = drawPlan(new Random(4), `x ${plan.marker}attic`, 5, 5);
    expect(drawn.marker).not.toBe(plan.marker);
  });

  test.each([20_000, 60_000, 1_500_000])(
    '%d tokens hold the sentences from first to last depth',
    (tokens) => {
      const { text, needles } = hide(novel, plan, tokens, 256);
      expect(text.length).toBe(tokens);
      expect(needles.map(({ label, key }) => ({ label, key }))).toEqual(plan.secrets);
      needles.forEach(({ label, key, token }, i) => {
        const sentence = `${plan.marker}${label} is ${key}. `;
        expect(text.slice(token, token + sentence.length)).toBe(sentence);
        expect(Math.abs(token / tokens - i / 4)).toBeLessThan(0.06);
      });
      // The last one is absorbed, and a whole segment follows it.
      const last = needles[4].token + plan.marker.length + 30;
      expect(Math.floor(tokens / 256)).toBeGreaterThan(Math.floor(last / 256) + 1);
      // Without the sentences the text is the novel.
      const rest = plan.secrets.reduce(
        (left, { label, key }) => left.replace(`${plan.marker}${label} is ${key}. `, ''),
        text,
      );
      expect(rest === take(novel, rest.length)).toBe(true);
    },
  );

  test('too few tokens are refused', () => {
    expect(() => hide(novel, plan, 700, 256)).toThrow(/too few/);
  });
});
