import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root } from '../package/run';

/** The program of docs/serving.md, word for word, in a process with workers of its own. */
const text = readFileSync(path.join(root, 'docs/serving.md'), 'utf8');
const program = /<!-- split\.mjs -->\n```js\n([\s\S]*?)\n```\n/.exec(text)?.[1] ?? '';

/** Inside the package, where `infini-stream` is the package itself. */
function runProgram(source: string): string[][] {
  mkdirSync(path.join(root, 'build'), { recursive: true });
  const folder = mkdtempSync(path.join(root, 'build/docs-'));
  try {
    const file = path.join(folder, 'split.mjs');
    writeFileSync(file, source);
    const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
      encoding: 'utf8',
      timeout: 300_000,
    });
    if (status !== 0) throw new Error(`status ${status}: ${stdout}${stderr}`);
    return stdout
      .trim()
      .split('\n')
      .map((line) => line.split(' '));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test.each(['delta', 'linear'])('one text on four workers is one text in one stream, rule %s', (rule) => {
  expect(program).toContain("rule: 'delta' };");
  const lines = runProgram(program.replace("rule: 'delta' };", `rule: '${rule}' };`));
  expect(lines.map(([name]) => name)).toEqual(['tokens', 'M', 'z', ...Array(4).fill('output')]);
  expect(lines[0]).toEqual(['tokens', '160', '160']);
  for (const line of lines.slice(1)) {
    expect(Number(line.at(-1))).toBeGreaterThanOrEqual(0);
    expect(Number(line.at(-1))).toBeLessThan(1e-5);
  }
});
