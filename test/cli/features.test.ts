import fc from 'fast-check';
import { LABELS, markerOf } from '../../lib/cli/features/document';
import { CLOSED, contextAt, Features, OPEN, openings } from '../../lib/cli/features/features';
import { FeatureWriter } from '../../lib/cli/features/pass';
import { loadText } from '../../lib/cli/source';

const marker = markerOf('amber otter');
const shape = { heads: 4, headDim: 16, valueDim: 8 };

/** The definition, token by token: what `openings` finds without looking at every token. */
const slowOpenings = (text: string, digits: number) =>
  [...text].flatMap((_, token) => {
    const context = contextAt(text.slice(0, token + 1), marker, digits);
    return context === null ? [] : [{ token, context }];
  });

describe('the selective key', () => {
  test('opens where the marker, a label and "is" have been read, and at each digit but the last', () => {
    const text = `Call me Ishmael. ${marker}mill is 407. Some years ago`;
    const found = openings(text, marker, 3);
    expect(found.map(({ context }) => context)).toEqual([
      `${marker}mill is `,
      `${marker}mill is 4`,
      `${marker}mill is 40`,
    ]);
    expect(found.map(({ token }) => text[token + 1]).join('')).toBe('407');
  });

  test('never opens in the whole novel', () => {
    expect(openings(loadText().text, marker, 5)).toEqual([]);
  });

  test.each([
    ['another marker', `${markerOf('silver otter')}mill is 4`],
    ['no label', `${marker} is 4`],
    ['a label with a capital', `${marker}Mill is 4`],
    ['a broken sentence', `${marker}mill was 4`],
    ['a letter among the digits', `${marker}mill is 4x`],
    ['a full key', `${marker}mill is 407`],
    ['a marker with one wrong letter', `${marker.replace('pass', 'past')}mill is 4`],
  ])('stays shut after %s', (_, past) => {
    expect(contextAt(past, marker, 3)).toBeNull();
  });

  test('never opens in random text', () => {
    fc.assert(fc.property(fc.string({ maxLength: 300 }), (text) => openings(text, marker, 5).length === 0));
  });

  test('openings() finds what contextAt() finds for each prefix', () => {
    const piece = fc.constantFrom(marker, marker.slice(0, 9), 'mill', 'tower', ' is ', '12', '7', '. ', 'A');
    const text = fc.array(piece, { maxLength: 24 }).map((pieces) => pieces.join(''));
    fc.assert(
      fc.property(text, (text) => {
        expect(openings(text, marker, 3)).toEqual(slowOpenings(text, 3));
      }),
    );
  });

  test('every label fits', () => {
    expect(new Set(LABELS).size).toBe(LABELS.length);
    for (const label of LABELS) expect(contextAt(`${marker}${label} is `, marker, 3)).toContain(label);
  });
});

describe('hashes and codes', () => {
  test('depend on the seed, the head and the context alone', () => {
    const slots = (seed: number, context: string) => {
      const features = new Features({ ...shape, headDim: 256 }, seed);
      return [0, 1, 2, 3].map((head) => features.slot(context, head));
    };
    expect(slots(1, 'a')).toEqual(slots(1, 'a'));
    expect(slots(1, 'a')).not.toEqual(slots(2, 'a'));
    expect(slots(1, 'a')).not.toEqual(slots(1, 'b'));
    expect(new Set(slots(1, 'a')).size).toBeGreaterThan(1);
  });

  test('a hash spreads contexts evenly over the slots', () => {
    const features = new Features(shape, 5);
    for (let head = 0; head < shape.heads; head++) {
      const hits = new Array(shape.headDim).fill(0);
      for (let i = 0; i < 16_000; i++) hits[features.slot(`context ${i}`, head)]++;
      expect(Math.min(...hits)).toBeGreaterThan(800);
      expect(Math.max(...hits)).toBeLessThan(1200);
    }
  });

  test('codes are signs, and those of two symbols are nearly at right angles', () => {
    const features = new Features({ heads: 16, headDim: 1, valueDim: 32 }, 9);
    for (let a = 32; a < 127; a++) {
      const code = features.code(a);
      expect(code.every((value) => Math.abs(value) === 1)).toBe(true);
      for (let b = a + 1; b < 127; b++) {
        const dot = features.code(b).reduce((sum, value, i) => sum + value * code[i], 0);
        expect(Math.abs(dot)).toBeLessThan(150); // of 512: six standard deviations are 136
      }
    }
  });
});

describe('FeatureWriter', () => {
  const features = new Features(shape, 3);
  const text = `The sea. ${marker}mill is 407. And the ${marker}pier is 55`;
  const width = shape.heads * shape.headDim;

  const written = (size: number) => {
    const writer = new FeatureWriter(text, openings(text, marker, 3), features, size);
    const keys: number[] = [];
    const values: number[] = [];
    for (let start = 0; start < text.length; start += size) {
      const { q, k, v } = writer.write(start, Math.min(size, text.length - start));
      expect(q).toBe(k);
      keys.push(...k);
      values.push(...v);
    }
    return { keys, values };
  };

  test('gives one open component a head where a key opens, and none elsewhere', () => {
    const { keys, values } = written(text.length);
    const open = new Map(openings(text, marker, 3).map(({ token, context }) => [token, context]));
    expect(open.size).toBe(6);
    for (let token = 0; token < text.length; token++) {
      const row = keys.slice(token * width, (token + 1) * width);
      const expected = new Array(width).fill(CLOSED);
      const context = open.get(token);
      for (let head = 0; context !== undefined && head < shape.heads; head++) {
        expected[head * shape.headDim + features.slot(context, head)] = OPEN;
      }
      expect(row).toEqual(expected);
      const next = text.charCodeAt(token + 1) || 32;
      expect(values.slice(token * 32, (token + 1) * 32)).toEqual([...features.code(next)]);
    }
  });

  test.each([1, 2, 7, 50])('gives the same in pieces of %d', (size) => {
    expect(written(size)).toEqual(written(text.length));
  });
});
