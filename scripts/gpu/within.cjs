// Programs that end in time, or are ended.

const { spawn } = require('node:child_process');
const { root } = require('./machine.cjs');

const outOfTime = 'out of time';

/** A time by which everything must have ended. `now` in milliseconds. */
function deadlineIn(seconds, now = () => performance.now()) {
  const end = now() + 1000 * seconds;
  return { left: () => Math.max(0, (end - now()) / 1000) };
}

/**
 * Runs a program for `seconds`, or until the deadline if that is sooner: { passed, output, ending }, and `ending` is
 * its status or signal, or 'out of time', also for one that is not even started. What is ended is the program with
 * everything that it has started (its process group), so that nothing of it disturbs what runs next.
 */
function runWithin(deadline, command, args, { seconds = Number.POSITIVE_INFINITY, env } = {}) {
  const limit = Math.min(seconds, deadline.left());
  if (limit <= 0) return Promise.resolve({ passed: false, output: '', ending: outOfTime });
  return new Promise((resolve) => {
    const options = { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] };
    const child = spawn(command, args, { ...options, detached: true });
    let output = '';
    const settle = (ending) => {
      clearTimeout(timer);
      process.off('exit', end);
      resolve({ passed: ending === 0, output, ending });
    };
    const end = () => {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {} // it has just ended by itself
    };
    // Not waiting for the end: a program that hangs in a driver can not be ended.
    const late = () => {
      end();
      child.unref();
      child.stdout.destroy();
      child.stderr.destroy();
      settle(outOfTime);
    };
    const timer = setTimeout(late, 1000 * limit);
    process.once('exit', end); // ours: a group of its own would outlive it
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    child.once('error', ({ code }) => settle(code));
    child.once('close', (status, signal) => settle(signal ?? status));
  });
}

module.exports = { deadlineIn, outOfTime, runWithin };
