// What test programs print, as { passed, failures: [{ name, reason }] }.

const { outOfTime } = require('./within.cjs');

function reasonOf({ ending, output }) {
  const how = ending === outOfTime ? outOfTime : `ended with ${ending}`;
  return [how, output.trim().slice(-1000)].filter(Boolean).join(': ');
}

/** One command is one test. */
function single(name, result) {
  if (result.passed) return { passed: 1, failures: [] };
  return { passed: 0, failures: [{ name, reason: reasonOf(result) }] };
}

/** Several outcomes as one. */
function together(outcomes) {
  return {
    passed: outcomes.reduce((sum, { passed }) => sum + passed, 0),
    failures: outcomes.flatMap(({ failures }) => failures),
  };
}

/** Adds how a program that runs many tests ended, where its tests do not say it: 1 is the status of failed tests. */
function withEnding(name, { passed, failures }, result) {
  const explained = result.passed || (result.ending === 1 && failures.length > 0);
  const ran = explained ? [] : single(name, result).failures;
  if (result.passed && passed + failures.length === 0) ran.push({ name, reason: 'it ran no test' });
  return { passed, failures: [...failures, ...ran] };
}

/** Of kernel_tests: `ok name`, `not ok name: reason`. */
function kernelTests(result) {
  const lines = result.output.split('\n');
  const failures = lines.flatMap((line) => {
    const [, name, reason] = /^not ok (\w+): (.*)$/.exec(line) ?? [];
    return name ? [{ name, reason }] : [];
  });
  const passed = lines.filter((line) => /^ok \w+$/.test(line)).length;
  return withEnding('kernel_tests', { passed, failures }, result);
}

/** Of `jest --json`. */
function suiteTests({ testResults }, result) {
  const files = testResults.filter(
    ({ assertionResults, status }) => status === 'failed' && assertionResults.length === 0,
  );
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.filter(({ status }) => status === 'failed');
  const passed = tests.filter(({ status }) => status === 'passed').length;
  const failures = [
    ...files.map(({ name, message }) => ({ name, reason: message.slice(0, 1000) })),
    ...failed.map(({ fullName, failureMessages }) => ({
      name: fullName,
      reason: failureMessages.join('\n').slice(0, 1000),
    })),
  ];
  return {
    ...withEnding('jest', { passed, failures }, result),
    pending: tests.filter(({ status }) => status === 'pending').map(({ fullName }) => fullName),
  };
}

module.exports = { kernelTests, single, suiteTests, together };
