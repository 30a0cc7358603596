// What ptxas says of the kernels (`-Xptxas -v`), as a ledger: one row for each kernel instance and architecture.

const { execFileSync } = require('node:child_process');

function number(pattern, text) {
  return Number(pattern.exec(text)?.[1] ?? 0);
}

/** @returns {{ kernel, architecture, registers, shared, stack, stores, loads }[]}; sizes in bytes, names mangled */
function parse(log) {
  const sections = log.split(/^ptxas info +: Compiling entry function /m).slice(1);
  return sections.map((text) => {
    const [, kernel, architecture] = /^'(\S+)' for '(sm_\w+)'/.exec(text);
    return {
      kernel,
      architecture,
      registers: number(/Used (\d+) registers/, text),
      shared: number(/(\d+) bytes smem/, text),
      stack: number(/(\d+) bytes stack frame/, text),
      stores: number(/(\d+) bytes spill stores/, text),
      loads: number(/(\d+) bytes spill loads/, text),
    };
  });
}

/** `void infini::cuda::(anonymous namespace)::forward<float, 64>(Shape, ...)` as `forward<float, 64>`. */
function shorten(signature) {
  const plain = signature.replaceAll('(anonymous namespace)::', '');
  const kernel = /(\w+(?:::))*(\w+(<.*>)?)\(/.exec(plain)?.[2] ?? signature;
  return kernel
    .replaceAll('__nv_bfloat16', 'bfloat16')
    .replaceAll('__half', 'float16')
    .replaceAll('infini::cuda::', '');
}

function demangle(rows) {
  const input = rows.map(({ kernel }) => kernel).join('\n');
  const names = execFileSync('c++filt', { input, encoding: 'utf8' }).split('\n');
  return rows.map((row, i) => ({ ...row, kernel: shorten(names[i]) }));
}

/** The instances that head dimensions of 64 and 128 use: all but those of the widest. */
function isTuned(kernel) {
  return !/\b256\b/.test(kernel);
}

/**
 * What must not be shipped, as sentences. `exceptions`: { kernel: a pattern, reason }, for instances that are not
 * tuned; each must be needed.
 */
function problems(rows, exceptions, sharedLimit) {
  const found = [];
  const needed = new Set();
  for (const row of rows) {
    const where = `${row.kernel} on ${row.architecture}`;
    if (row.shared > sharedLimit) found.push(`${where} needs ${row.shared} bytes of shared memory`);
    if (row.stack === 0 && row.stores === 0 && row.loads === 0) continue;
    const spilled = `${row.stores} bytes of registers stored and ${row.loads} loaded`;
    const what = `${where} uses ${row.stack} bytes of local memory, ${spilled}`;
    const exception = exceptions.find(({ kernel }) => kernel.test(row.kernel));
    if (isTuned(row.kernel)) found.push(`${what}: it is a tuned instance`);
    else if (exception) needed.add(exception);
    else found.push(`${what}: scripts/kernels/exceptions.cjs gives no reason`);
  }
  for (const exception of exceptions) {
    if (!needed.has(exception))
      found.push(`scripts/kernels/exceptions.cjs: nothing needs ${exception.kernel}`);
  }
  return found;
}

module.exports = { demangle, isTuned, parse, problems, shorten };
