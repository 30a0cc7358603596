const { runWithin } = require('./within.cjs');

/**
 * Takes the steps named, one after the other, and returns { failed, steps }. A step that throws has failed, and so has
 * every program that the deadline leaves no time for. `say` takes a line at a time; the steps get what else is given.
 */
async function verify(steps, only, { deadline, say, ...given }) {
  const run = (command, args, options) => runWithin(deadline, command, args, options);
  const result = { failed: 0, steps: {} };
  for (const name of only) {
    const start = performance.now();
    const outcome = await steps[name]({ ...given, run }).catch(({ message }) => ({
      passed: 0,
      failures: [{ name, reason: message }],
    }));
    const seconds = Math.round((performance.now() - start) / 100) / 10;
    const failures = outcome.failures ?? [];
    result.steps[name] = { ...outcome, seconds };
    result.failed += failures.length;
    const summary = outcome.skipped ?? `${outcome.passed} passed, ${failures.length} failed`;
    say(`${name.padEnd(10)} ${summary} (${seconds} s)`);
    for (const { name, reason } of failures) say(`  FAILED ${name}: ${reason}`);
  }
  return result;
}

module.exports = { verify };
