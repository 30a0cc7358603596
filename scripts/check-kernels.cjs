// Compiles the kernels for every architecture of a release and reads what ptxas says of them: warnings, and spilled
// registers where there must be none, fail. Prints registers and memory of each instance; --json: for programs.
//   npm run check:kernels [-- --json]

const fs = require('node:fs');
const path = require('node:path');
const { make, releaseOptions, releaseTree, root } = require('./build.cjs');
const { demangle, parse, problems } = require('./kernels/ledger.cjs');
const exceptions = require('./kernels/exceptions.cjs');

const architectures = ['sm_80', 'sm_90', 'sm_100', 'sm_120'];
const staticLimit = 48 * 1024;

const tree = releaseTree();
make({ tree, options: [...releaseOptions, '-DINFINI_CUDA=ON'], targets: ['cuda_kernels'] });

const sources = path.join(root, 'cuda/kernels');
const rows = fs
  .readdirSync(sources)
  .filter((file) => file.endsWith('.cu'))
  .flatMap((file) => {
    const log = path.join(tree, `CMakeFiles/cuda_kernels.dir/cuda/kernels/${file}.o.ptxas`);
    return demangle(parse(fs.readFileSync(log, 'utf8'))).map((row) => ({ file, ...row }));
  });

const found = problems(rows, exceptions, staticLimit);
for (const architecture of architectures) {
  if (!rows.some((row) => row.architecture === architecture)) found.push(`no code for ${architecture}`);
}

function print() {
  const kernels = [...new Set(rows.map(({ file, kernel }) => `${file} ${kernel}`))].sort();
  const width = Math.max(...kernels.map(({ length }) => length));
  const line = (name, cells) => console.log(name.padEnd(width), ...cells.map((cell) => cell.padStart(15)));
  console.log('registers, static shared memory, spilled bytes');
  line('', architectures);
  for (const name of kernels) {
    const cells = architectures.map((architecture) => {
      const row = rows.find(
        (each) => each.architecture === architecture && `${each.file} ${each.kernel}` === name,
      );
      return row ? `${row.registers} ${row.shared} ${row.stores + row.loads || '-'}` : 'none';
    });
    line(name, cells);
  }
  console.log(`${kernels.length} kernels, ${rows.length} with architectures counted.`);
  for (const problem of found) console.log(`FAILED ${problem}`);
}

if (process.argv.includes('--json')) console.log(JSON.stringify({ rows, problems: found }));
else print();
process.exitCode = found.length === 0 ? 0 : 1;
