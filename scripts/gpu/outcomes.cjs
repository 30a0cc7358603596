// What test programs print, as { passed, failures: [{ name, reason }] }.

/** Of kernel_tests: `ok name`, `not ok name: reason`. A program that dies has failed besides. */
function kernelTests({ output, passed, ending }) {
  const lines = output.split('\n');
  const failures = lines.flatMap((line) => {
    const [, name, reason] = /^not ok (\w+): (.*)$/.exec(line) ?? [];
    return name ? [{ name, reason }] : [];
  });
  const succeeded = lines.filter((line) => /^ok \w+$/.test(line)).length;
  if (!passed && failures.length === 0)
    failures.push({ name: 'kernel_tests', reason: `ended with ${ending}: ${output.trim().slice(-1000)}` });
  if (passed && succeeded === 0) failures.push({ name: 'kernel_tests', reason: 'it ran no test' });
  return { passed: succeeded, failures };
}

/** Of `jest --json`. */
function suiteTests({ testResults }) {
  const files = testResults.filter(
    ({ assertionResults, status }) => status === 'failed' && assertionResults.length === 0,
  );
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.filter(({ status }) => status === 'failed');
  return {
    passed: tests.filter(({ status }) => status === 'passed').length,
    pending: tests.filter(({ status }) => status === 'pending').map(({ fullName }) => fullName),
    failures: [
      ...files.map(({ name, message }) => ({ name, reason: message.slice(0, 1000) })),
      ...failed.map(({ fullName, failureMessages }) => ({
        name: fullName,
        reason: failureMessages.join('\n').slice(0, 1000),
      })),
    ],
  };
}

module.exports = { kernelTests, suiteTests };
