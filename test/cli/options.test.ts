import type { Command } from 'commander';
import { demoCommand } from '../../lib/cli/demo';
import { lengthName } from '../../lib/cli/format';
import { gatesCommand } from '../../lib/cli/gates';
import { generateCommand } from '../../lib/cli/generate';
import { choices, length, lengths, number } from '../../lib/cli/options';
import { passkeyCommand } from '../../lib/cli/passkey';

/** What the command says of these options before it does anything. */
async function refusal(command: Command, args: string[]): Promise<string> {
  let said = '';
  const quiet = command.exitOverride().configureOutput({
    writeErr: (text) => {
      said += text;
    },
  });
  await expect(quiet.parseAsync(args, { from: 'user' })).rejects.toMatchObject({ exitCode: 1 });
  return said;
}

const MODEL = ['--model', '/nowhere'];

test.each<[() => Command, string[], RegExp]>([
  [demoCommand, ['--needles', '3'], /'--needles <n>' is for --features/],
  [demoCommand, ['--digits', '5'], /'--digits <n>' is for --features/],
  [demoCommand, ['--file', 'x', ...MODEL], /'--file <path>' is for --features/],
  [demoCommand, ['--features', '--depth', '0.5'], /'--depth <share>' is not for --features/],
  [demoCommand, ['--features', '--haystack', 'filler'], /'--haystack <text>' is not for --features/],
  [demoCommand, ['--features', ...MODEL], /'--model <dir>' is not for --features/],
  [demoCommand, ['--depth', '2'], /at least 0 and at most 1/],
  [demoCommand, ['--rule', 'delta', ...MODEL], /cannot be used with option '--rule <rule>'/],
  [demoCommand, ['--rule', 'none'], /Allowed choices are linear, delta/],
  [gatesCommand, ['--rule', 'delta', ...MODEL], /cannot be used with option '--rule <rule>'/],
  [passkeyCommand, ['--rule', 'delta', ...MODEL], /cannot be used with option '--rule <rule>'/],
  [passkeyCommand, ['--lengths', '32K,1K'], /whole number from 2048 to/],
  [passkeyCommand, ['--depths', 'start,top'], /start, middle, end but received 'top'/],
  [passkeyCommand, ['--keys', '0'], /at least 1 and at most 1000/],
  [passkeyCommand, ['--seed', '4294967296'], /at most 4294967295/],
  [passkeyCommand, ['--haystack', 'hay'], /Allowed choices are filler, english/],
  [generateCommand, ['--prompt', 'x'], /required option '--model <dir>'/],
  [generateCommand, MODEL, /--file or --prompt is needed/],
  [generateCommand, [...MODEL, '--prompt', 'x', '--temperature', '-1'], /at least 0/],
  [generateCommand, [...MODEL, '--prompt', 'x', '--top-k', '0'], /at least 1/],
  [generateCommand, [...MODEL, '--prompt', 'x', '--max-tokens', '1.5'], /whole number/],
])('%# is refused with a message', async (make, args, message) => {
  expect(await refusal(make(), args)).toMatch(message);
});

test('lengths have units', () => {
  const one = length(1, 2 ** 30);
  expect(['7', '32K', '32k', '1M', '1024M'].map(one)).toEqual([7, 32768, 32768, 1048576, 2 ** 30]);
  for (const text of ['', 'K', '0', '1.5K', '-1', '1 K', '1G', '1025M', '1e3', '0x10']) {
    expect(() => one(text)).toThrow(/expected a whole number from 1 to 1073741824/);
  }
  expect(lengths(1, 100_000)('2K, 7,2048,1K')).toEqual([7, 1024, 2048]);
  expect(() => lengths(1, 9)('7,,8')).toThrow();
  expect([0, 7, 1024, 1536, 3000, 32768, 1 << 20, 3 << 19].map(lengthName)).toEqual([
    '0',
    '7',
    '1K',
    '1,536',
    '3,000',
    '32K',
    '1M',
    '1536K',
  ]);
});

test('choices keep their order', () => {
  expect(choices(['a', 'b', 'c'])('c, a')).toEqual(['a', 'c']);
  expect(() => choices(['a', 'b'])('a,')).toThrow(/some of a, b but received ''/);
});

test('numbers have bounds', () => {
  expect(['0', '0.5', '1'].map(number(0, 1))).toEqual([0, 0.5, 1]);
  for (const text of ['', ' ', 'x', '-0.1', '1.1', 'NaN', 'Infinity'])
    expect(() => number(0, 1)(text)).toThrow();
  expect(() => number(0)('Infinity')).toThrow(/at least 0\./);
});
