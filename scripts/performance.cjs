// The performance section of README.md and the list of results in bench/README.md, from bench/results/: npm run performance
// A test holds both against what this writes.

const fs = require('node:fs');
const path = require('node:path');
const { newest, readResults } = require('./performance/results.cjs');
const { listOfResults, performance } = require('./performance/tables.cjs');

const root = path.join(__dirname, '..');

/** The text with what stands between `<!-- name -->` and `<!-- /name -->` replaced. */
function replaceSection(text, name, content) {
  const [open, close] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`];
  const [from, to] = [text.indexOf(open), text.indexOf(close)];
  if (from < 0 || to < from) throw new Error(`there is no section between ${open.trim()} and ${close}`);
  return `${text.slice(0, from + open.length)}${content}\n${text.slice(to)}`;
}

/** { file: text } as the files should be. */
function documents(folder = path.join(root, 'bench/results')) {
  const results = readResults(folder);
  const write = (file, section, content) => [
    file,
    replaceSection(fs.readFileSync(path.join(root, file), 'utf8'), section, content),
  ];
  return Object.fromEntries([
    write('README.md', 'performance', performance(newest(results))),
    write('bench/README.md', 'results', listOfResults(results)),
  ]);
}

if (require.main === module)
  for (const [file, text] of Object.entries(documents())) fs.writeFileSync(path.join(root, file), text);

module.exports = { documents, replaceSection };
