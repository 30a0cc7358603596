// Runs the same streams on a device once, then again and again, and compares every bit that they give with the first
// time: a race that the tests' tolerances forgive shows here.
//   node scripts/gpu/repeats.cjs DEVICE REPEATS

const path = require('node:path');
const { openDevice } = require(path.join(__dirname, '../..'));
const { configurations, digest } = require('./digests.cjs');

/** All streams at once every other time: their calls share launches then, which must not show. */
async function round(device, together) {
  if (together) return Promise.all(configurations.map((config) => digest(device, config)));
  const digests = [];
  for (const config of configurations) digests.push(await digest(device, config));
  return digests;
}

async function main(id, repeats) {
  if (!(repeats >= 1)) throw new Error('expected a number of repeats, 1 at least');
  const device = openDevice(id);
  const first = await round(device, false);
  const failures = [];
  for (let i = 1; i <= repeats; i++) {
    const digests = await round(device, i % 2 === 1);
    digests.forEach((found, at) => {
      if (found !== first[at]) failures.push(`repeat ${i} of ${JSON.stringify(configurations[at])} differs`);
    });
  }
  device.close();
  for (const failure of failures) console.log(failure);
  console.log(`${configurations.length} configurations, each run once and repeated ${repeats} times`);
  process.exitCode = failures.length === 0 ? 0 : 1;
}

main(process.argv[2], Number(process.argv[3])).catch((error) => {
  console.error(error.message);
  process.exitCode = 2;
});
