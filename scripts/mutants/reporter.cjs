// Tells scripts/mutants.cjs which test failed first: jest's own report is not written when it bails out.

const fs = require('node:fs');

module.exports = class {
  onTestResult(test, { testResults }) {
    const failed = testResults.find(({ status }) => status === 'failed');
    if (failed) fs.appendFileSync(process.env.MUTANTS_REPORT, `${test.path}: ${failed.fullName}\n`);
  }
};
