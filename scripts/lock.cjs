const fs = require('node:fs');

const tooLong = 15 * 60_000; // in a restarted container an old process id may belong to another program

function ownerIsAlive(file) {
  try {
    if (Date.now() - fs.statSync(file).mtimeMs > tooLong) return false;
    process.kill(Number(fs.readFileSync(file, 'utf8')), 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Two terminals may start at once: the second one waits here, then finds everything done. */
function withLock(file, work) {
  let waiting = false;
  for (;;) {
    try {
      fs.writeFileSync(file, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (!ownerIsAlive(file)) {
      fs.rmSync(file, { force: true }); // left by a process that was killed
      continue;
    }
    if (!waiting) process.stderr.write('Waiting for another terminal that is building...\n');
    waiting = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
  const release = () => fs.rmSync(file, { force: true });
  process.once('exit', release); // also covers process.exit() inside
  try {
    return work();
  } finally {
    release();
    process.off('exit', release);
  }
}

module.exports = { withLock };
