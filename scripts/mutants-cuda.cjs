// Tests the kernels' tests: puts one fault at a time into a copy of the CUDA kernels (scripts/mutants/cuda.cjs), builds
// it for the host and expects a test of test/cuda-on-host to fail, in the plain build or else in the one that reports
// races. Faults that are listed as equivalent, with a proof, must survive.
//   npm run test:mutants -- cuda [words of the faults' files and names]

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { environment, listKernelTests, variants } = require('./kernel-tests.cjs');
const { mirror, patched } = require('./mutants/copy.cjs');
const faults = require('./mutants/cuda.cjs');

const root = path.join(__dirname, '..');
const builds = variants.slice(0, 2); // plain, race
const mostSeconds = 300;

/** Runs a program; `line` sees each line of its output and may end it by returning true. */
function run(program, args, { cwd, line = () => false } = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd, env: environment });
    const timer = setTimeout(() => child.kill('SIGKILL'), mostSeconds * 1000);
    let output = '';
    let rest = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
        const lines = (rest + text).split('\n');
        rest = lines.pop();
        if (lines.some(line)) child.kill('SIGKILL');
      });
    }
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, output });
    });
  });
}

/** A copy of the sources with build trees of its own, so that several faults are tried at once. */
class Copy {
  constructor(number) {
    this.folder = path.join(root, 'build-mutants', `cuda-${number}`);
    for (const part of ['cuda', 'native/core', 'test/cuda-on-host']) {
      mirror(path.join(root, part), path.join(this.folder, part), (name) =>
        /^emulation.*\.test\.cc$/.test(name),
      );
    }
    this.sound = new Set(); // variants that have passed without a fault
  }

  async build(variant) {
    const tree = path.join(this.folder, variant);
    const source = path.join(this.folder, 'test/cuda-on-host');
    const steps = [['--build', tree, '--target', 'kernel_tests']];
    if (!fs.existsSync(path.join(tree, 'CMakeCache.txt'))) {
      steps.unshift(['-S', source, '-B', tree, `-DVARIANT=${variant}`]);
    }
    for (const step of steps) {
      const { status, output } = await run('cmake', step);
      if (status !== 0) throw new Error(`it does not compile:\n${output.slice(-2000)}`);
    }
    return tree;
  }

  /** The first failure of the tests whose names contain one of `parts`, with its reason; undefined when all pass. */
  async firstFailure(variant, parts) {
    const tree = await this.build(variant);
    if (listKernelTests(tree, parts).length === 0)
      throw new Error(`no kernel test is called ${parts.join(' or ')}`);
    let failure;
    const { status, signal, output } = await run(path.join(tree, 'kernel_tests'), parts, {
      line: (text) => {
        if (text.startsWith('not ok ')) failure ??= text.slice('not ok '.length);
        return failure !== undefined;
      },
    });
    if (failure) return `${variant}: ${failure}`;
    if (status === 0) return undefined;
    throw new Error(
      `${variant}: no test failed, but they ended with ${signal ?? status}:\n${output.slice(-2000)}`,
    );
  }

  async expectSound(variant, parts) {
    const key = `${variant} ${parts}`;
    if (this.sound.has(key)) return;
    const failure = await this.firstFailure(variant, parts);
    if (failure) throw new Error(`the tests fail without any fault: ${failure}`);
    this.sound.add(key);
  }

  /** Puts the fault in, looks for a failure in one build after the other, and takes it out again. */
  async tryOut(fault) {
    const file = path.join(this.folder, fault.file);
    const text = fs.readFileSync(file, 'utf8');
    for (const variant of builds) {
      await this.expectSound(variant, fault.tests);
      fs.writeFileSync(file, patched(text, fault));
      try {
        const failure = await this.firstFailure(variant, fault.tests);
        if (failure) return failure;
      } finally {
        fs.writeFileSync(file, text);
      }
    }
    return undefined;
  }
}

function outcomeOf(fault, failure) {
  if (fault.equivalent) return failure ? 'NOT EQUIVALENT' : 'equivalent';
  return failure ? 'killed' : 'SURVIVED';
}

/** @returns whether all is as it should be */
async function testCudaFaults(words) {
  const chosen = faults.filter(({ file, name }) => words.every((word) => `${file} ${name}`.includes(word)));
  for (const fault of chosen) patched(fs.readFileSync(path.join(root, fault.file), 'utf8'), fault);
  const copies = Array.from(
    { length: Math.min(os.availableParallelism(), chosen.length) },
    (_, i) => new Copy(i),
  );

  const queue = [...chosen];
  let good = 0;
  const worker = async (copy) => {
    for (let fault = queue.shift(); fault; fault = queue.shift()) {
      const start = Date.now();
      let outcome = 'BROKEN';
      let detail = fault.equivalent;
      try {
        const failure = await copy.tryOut(fault);
        outcome = outcomeOf(fault, failure);
        detail = failure ?? detail;
      } catch (error) {
        detail = error.message.trim();
      }
      const seconds = `${((Date.now() - start) / 1000).toFixed(0)} s`;
      console.log(`${outcome.padEnd(10)}  ${path.basename(fault.file)}: ${fault.name} (${seconds})`);
      if (detail) console.log(`            ${detail.slice(outcome === 'BROKEN' ? -1000 : 0).slice(0, 1000)}`);
      if (outcome === 'killed' || outcome === 'equivalent') good++;
    }
  };
  await Promise.all(copies.map(worker));
  console.log(`${good} of ${chosen.length} faults in the kernels ended as they should.`);
  return good === chosen.length;
}

module.exports = { testCudaFaults };
