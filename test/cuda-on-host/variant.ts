// Each TEST of the C++ files beside this one becomes a test of jest: built for the host in one of the variants that
// CMakeLists.txt describes, run in a process of its own.

import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { buildKernelTests, environment, listKernelTests, type Variant } from '../../scripts/kernel-tests.cjs';

interface Outcome {
  line: string; // 'ok name' or 'not ok name: reason'
  output: string;
}

function start(folder: string, name: string): Promise<Outcome> {
  return new Promise((resolve) => {
    let output = '';
    const child = spawn(join(folder, 'kernel_tests'), [name], { env: environment });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    child.on('error', (error) => resolve({ line: String(error), output }));
    child.on('close', (status, signal) => {
      const lines = output.split('\n');
      const line = lines.find((each) => each === `ok ${name}` || each.startsWith(`not ok ${name}: `));
      resolve({ line: line ?? `ended with status ${status}, signal ${signal}`, output });
    });
  });
}

/** Some tests ahead of jest, so that all cores are busy. */
function runner(folder: string, names: string[]): (index: number) => Promise<Outcome> {
  const started = new Map<number, Promise<Outcome>>();
  return (index) => {
    for (let i = index; i < Math.min(index + availableParallelism(), names.length); i++) {
      if (!started.has(i)) started.set(i, start(folder, names[i]));
    }
    return started.get(index) as Promise<Outcome>;
  };
}

/** `parts`: only tests whose names contain one of them. */
export function describeVariant(variant: Variant, parts: string[] = []): void {
  if (process.platform !== 'linux') {
    describe.skip(`the kernels, variant ${variant}`, () => test('run on Linux', () => undefined));
    return;
  }
  const folder = buildKernelTests(variant);
  const names = listKernelTests(folder, parts);
  const outcome = runner(folder, names);
  describe(`the kernels, variant ${variant}`, () => {
    test.each(names)(
      '%s',
      async (name) => {
        const { line, output } = await outcome(names.indexOf(name));
        if (line !== `ok ${name}`) throw new Error(output.trim() === line ? line : `${line}\n${output}`);
      },
      600_000,
    );
  });
}
