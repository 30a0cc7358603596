// What the two kinds of mutants share: a copy of the sources, and a fault put into a text.

const fs = require('node:fs');
const path = require('node:path');

/**
 * Writes only what differs: the times of the other files tell the build that they need no compiling. Files whose names
 * `leaves` are left out.
 */
function mirror(from, to, leaves = () => false) {
  if (fs.statSync(from).isDirectory()) {
    fs.mkdirSync(to, { recursive: true });
    const names = fs.readdirSync(from).filter((name) => !leaves(name));
    for (const name of fs.readdirSync(to)) {
      if (!names.includes(name)) fs.rmSync(path.join(to, name), { recursive: true });
    }
    for (const name of names) mirror(path.join(from, name), path.join(to, name), leaves);
    return;
  }
  const bytes = fs.readFileSync(from);
  if (!fs.existsSync(to) || !fs.readFileSync(to).equals(bytes)) fs.writeFileSync(to, bytes);
}

function patched(text, { name, find, replace }) {
  const places = text.split(find).length - 1;
  if (places !== 1) throw new Error(`"${name}": what to replace occurs ${places} times`);
  return text.replace(find, () => replace);
}

module.exports = { mirror, patched };
