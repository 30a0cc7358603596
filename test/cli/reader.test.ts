import { markerOf } from '../../lib/cli/features/document';
import { CLOSED, Features, OPEN } from '../../lib/cli/features/features';
import { readKey } from '../../lib/cli/features/reader';
import { Random } from '../../lib/cli/random';
import { binomialTail, score } from '../../lib/cli/score';

const shape = { heads: 4, headDim: 32, valueDim: 16 };
const features = new Features(shape, 7);
const marker = markerOf('jade swift');

/** A memory that answers by the whole query, as a table would. */
function tableMemory(entries: [context: string, digit: string][]) {
  const rows = new Map(
    entries.map(([context, digit]) => {
      const q = new Float32Array(shape.heads * shape.headDim).fill(CLOSED);
      features.mark(q, context, OPEN);
      return [q.join(), features.code(digit.charCodeAt(0))];
    }),
  );
  return (q: Float32Array) => rows.get(q.join()) ?? new Float32Array(shape.heads * shape.valueDim);
}

describe('the reader', () => {
  const entries: [string, string][] = [
    [`${marker}mill is `, '4'],
    [`${marker}mill is 4`, '0'],
    [`${marker}mill is 40`, '7'],
  ];

  test('asks with the digits it has read', () => {
    expect(readKey(tableMemory(entries), features, marker, 'mill', 3, new Random(1))).toBe('407');
  });

  test('goes on from its own mistake', () => {
    const wrong: [string, string][] = [
      [`${marker}mill is `, '5'],
      ...entries.slice(1),
      [`${marker}mill is 5`, '1'],
    ];
    expect(readKey(tableMemory(wrong), features, marker, 'mill', 2, new Random(1))).toBe('51');
  });

  test('guesses where the memory says nothing', () => {
    const random = new Random(2);
    const key = readKey(tableMemory([]), features, marker, 'mill', 1000, random);
    for (const digit of '0123456789') {
      const share = [...key].filter((read) => read === digit).length / 1000;
      expect(share).toBeGreaterThan(0.05);
      expect(share).toBeLessThan(0.15);
    }
  });
});

describe('the score', () => {
  test('counts keys and digits', () => {
    const { keysRight, digitsRight, digits } = score(['123', '456'], ['123', '486']);
    expect({ keysRight, digitsRight, digits }).toEqual({ keysRight: 1, digitsRight: 5, digits: 6 });
  });

  test('knows how likely a guess is', () => {
    expect(binomialTail(25, 0, 0.1)).toBe(1);
    expect(binomialTail(1, 1, 0.1)).toBeCloseTo(0.1, 12);
    expect(binomialTail(3, 2, 0.1)).toBeCloseTo(0.028, 12);
    expect(binomialTail(25, 25, 0.1) / 1e-25).toBeCloseTo(1, 9);
    expect(score(['12345'], ['12345']).byChance).toBeLessThan(1.1e-5);
  });
});
