import { Turns } from '../../lib/serving/turns';

test('a piece is at most half of what may be at work, and a short request at most 16 tokens', () => {
  const limits = [1, 2, 3, 10, 64, 1024].map((most) => {
    const { pieceTokens, shortTokens } = new Turns<string>(most);
    return [most, pieceTokens, shortTokens];
  });
  expect(limits).toEqual([
    [1, 1, 1],
    [2, 1, 1],
    [3, 1, 1],
    [10, 5, 5],
    [64, 32, 16],
    [1024, 512, 16],
  ]);
});

test('each line is first come, first served; who comes back goes to its end', () => {
  const turns = new Turns<string>(64);
  for (const name of ['a', 'b', 'c']) turns.join(name, true, 1);
  const order: (string | undefined)[] = [];
  for (let i = 0; i < 7; i++) {
    const next = turns.next(true);
    order.push(next);
    if (next) turns.join(next, true, 1);
  }
  expect(order).toEqual(['a', 'b', 'c', 'a', 'b', 'c', 'a']);
  turns.leave('b');
  expect([turns.next(true), turns.next(true), turns.next(true)]).toEqual(['c', 'a', undefined]);
});

test('what is at work in one line bounds that line alone', () => {
  const turns = new Turns<string>(10);
  turns.join('prompt', false, 5);
  turns.join('other', false, 5);
  turns.join('third', false, 5);
  for (const name of ['prompt', 'other']) {
    expect(turns.next(false)).toBe(name);
    turns.begin(false, 5);
  }
  expect(turns.next(false)).toBeUndefined();
  for (let i = 0; i < 3; i++) turns.join(`token ${i}`, true, 4);
  for (let i = 0; i < 2; i++) {
    expect(turns.next(true)).toBe(`token ${i}`);
    turns.begin(true, 4);
  }
  expect(turns.next(true)).toBeUndefined();
  turns.end(true, 4);
  expect(turns.next(true)).toBe('token 2');
  turns.end(false, 5);
  expect(turns.next(false)).toBe('third');
});

test('the first in line is never overtaken by one that would fit, and goes when nothing is at work', () => {
  const turns = new Turns<string>(10);
  turns.begin(true, 8);
  turns.join('large', true, 5);
  turns.join('small', true, 1);
  expect(turns.next(true)).toBeUndefined();
  turns.end(true, 8);
  expect(turns.next(true)).toBe('large');
  turns.begin(true, 5);
  expect(turns.next(true)).toBe('small');
});
