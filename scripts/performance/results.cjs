// What lies in bench/results/. Measurements of the CPU are called cpu-<what>-<date>.json, where <what> is the type, or the type
// and whatever tells it from another (float32, float32-avx512), or scaling; the newest of each stands in README.md.

const fs = require('node:fs');
const path = require('node:path');

const NAME = /^cpu-(.+)-(\d{4}-\d{2}-\d{2})\.json$/;
const ORDER = ['float32', 'bfloat16', 'float16'];

/** [{ file, what, day, report }], by name; `what` and `day` only of those that are called as above. */
function readResults(folder) {
  const files = fs.readdirSync(folder).filter((file) => file.endsWith('.json'));
  return files.sort().map((file) => {
    const [, what, day] = NAME.exec(file) ?? [];
    return { file, what, day, report: JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8')) };
  });
}

/** The newest of each, float32 first, then the other types, then what is none. */
function newest(results) {
  const latest = new Map();
  for (const result of results) {
    const { what, day } = result;
    if (what !== undefined && !(latest.get(what)?.day > day)) latest.set(what, result);
  }
  const rank = ({ what }) => {
    const at = ORDER.findIndex((type) => what === type || what.startsWith(`${type}-`));
    return at < 0 ? ORDER.length : at;
  };
  return [...latest.values()].sort((a, b) => rank(a) - rank(b) || (a.what < b.what ? -1 : 1));
}

module.exports = { newest, readResults };
