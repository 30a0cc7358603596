// Random calls on many streams for a long time.
//   npm run soak [-- --minutes 30 | --seconds 60] [--seed N] [--streams 200]

const { readOptions, runProgram } = require('./random-program.cjs');

const options = readOptions(process.argv.slice(2), { streams: 200 });
process.exitCode = runProgram('test/soak/soak.ts', options, [options.streams]);
