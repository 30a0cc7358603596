// The table of README.md and of the models' cards, from results that `infini-stream passkey --json` wrote:
//   node scripts/passkey-table.cjs bench/results/passkey-*.json

const fs = require('node:fs');
const path = require('node:path');

const percent = (share) => (100 * share).toFixed(share === 1 ? 0 : 1);
const cell = ({ accuracy, interval: [low] }) => `${percent(accuracy)} (≥ ${Math.floor(100 * low)})`;
const size = (tokens) => (tokens % 2 ** 20 === 0 ? `${tokens / 2 ** 20}M` : `${tokens / 1024}K`);

for (const file of process.argv.slice(2)) {
  const { rows, settings, cpu, date, total, model } = JSON.parse(fs.readFileSync(file, 'utf8'));
  const depths = rows[0].cells.map(({ depth }) => depth);
  console.log(`**${path.basename(file, '.json')}**: ${model.rule} rule, haystack ${settings.haystack}\n`);
  console.log(`| tokens | keys | ${depths.join(' | ')} | paper | no key | reset | tokens/s |`);
  console.log(`|${' ---: |'.repeat(depths.length + 6)}`);
  for (const row of rows) {
    const paper = row.cells.map(({ paper }) => (paper === null ? '–' : Math.round(100 * paper))).join('/');
    const controls = [row.noKey, row.reset].map(({ accuracy }) => percent(accuracy));
    const rate = Math.round(row.tokensPerSecond / 1000);
    const cells = [size(row.length), row.keys, ...row.cells.map(cell), paper, ...controls, `${rate},000`];
    console.log(`| ${cells.join(' | ')} |`);
  }
  console.log(`\n${date.slice(0, 10)}, ${cpu}, ${Math.round(total.seconds)} s.\n`);
}
