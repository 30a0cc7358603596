import { gateMap, inColumns } from '../../lib/cli/gates';
import { colourOf, isBright, onColour } from '../../lib/cli/report/colours';
import { heatMapSvg } from '../../lib/cli/report/heat-map';
import { escapeMarkup, htmlTable } from '../../lib/cli/report/page';

const shares = [
  [0, 0.5, 1],
  [0.031, 0.97, 0.25],
];
const map = gateMap('a <b> & "c"', shares);

test('text is escaped', () => {
  expect(escapeMarkup(`<a href="x">'&\0\x1f\n</a>`)).toBe(
    '&lt;a href=&quot;x&quot;&gt;&#39;&amp;\n&lt;/a&gt;',
  );
  expect(htmlTable([['<'], ['&']])).toBe(
    '<table>\n<tr><th>&lt;</th></tr>\n<tr><td>&amp;</td></tr>\n</table>',
  );
});

test('a picture has every cell with its number, and is well formed', () => {
  const svg = heatMapSvg({ ...map, rows: ['<0>', '1'] });
  for (const share of shares.flat()) expect(svg).toContain(`>${share.toFixed(2)}<`);
  expect(svg).toContain('a &lt;b&gt; &amp; &quot;c&quot;');
  expect(svg).toContain('&lt;0&gt;');
  expect(svg).toContain('layer 1, head 0: 0.0310');
  const open: string[] = [];
  for (const [, closing, name, rest] of svg.matchAll(/<(\/?)([a-z]+)([^<>]*)>/g)) {
    if (closing) expect(open.pop()).toBe(name);
    else if (!rest.endsWith('/')) open.push(name);
  }
  expect(open).toEqual([]);
  expect(svg.replace('http://www.w3.org/2000/svg', '')).not.toMatch(/http|script|style/);
  // Inside the picture, whatever the number of columns.
  const [, width] = /viewBox="0 0 (\d+)/.exec(svg) ?? [];
  for (const [, x] of svg.matchAll(/ x="([\d.]+)"/g)) expect(Number(x)).toBeLessThan(Number(width));
});

test('colours go from dark to bright, and ink can be read on them', () => {
  const light = ([red, green, blue]: readonly number[]) => 0.299 * red + 0.587 * green + 0.114 * blue;
  for (let i = 0; i < 100; i++) {
    expect(light(colourOf((i + 1) / 100))).toBeGreaterThan(light(colourOf(i / 100)));
  }
  expect(colourOf(-1)).toEqual([68, 1, 84]);
  expect(colourOf(2)).toEqual([253, 231, 37]);
  expect([isBright(colourOf(0)), isBright(colourOf(1))]).toEqual([false, true]);
  expect(onColour('x', [255, 255, 255])).toBe('\x1b[48;5;231;38;5;16mx\x1b[0m');
  expect(onColour('x', [0, 0, 0])).toBe('\x1b[48;5;16;38;5;231mx\x1b[0m');
});

test('a terminal shows numbers, with colours only where there are some', () => {
  const plain = inColumns(map, false);
  expect(plain).toMatch(/^ +0 +0\.00 +0\.50 +1\.00$/m);
  expect(plain).toMatch(/^ +1 +0\.03 +0\.97 +0\.25$/m);
  expect(plain).not.toContain('\x1b');
  const coloured = inColumns(map, true);
  expect(coloured).toContain('\x1b[48;5;');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those of the colours
  expect(coloured.replace(/\x1b\[[\d;]*m/g, '')).toBe(plain);
});
