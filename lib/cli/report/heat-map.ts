import { type Colour, colourOf, isBright } from './colours';
import { escapeMarkup } from './page';

export interface HeatMap {
  title: string;
  rowTitle: string;
  rows: string[];
  columnTitle: string;
  columns: string[];
  /** By row and column: a share from 0 to 1, what to write on it, and what to say of it. */
  cells: { share: number; label: string; note: string }[][];
}

const WIDTH = 72;
const HEIGHT = 36;
const LEFT = 110;
const TOP = 70;

const rgb = (colour: Colour): string => `rgb(${colour.join(',')})`;

/** As a picture of its own (SVG), without scripts or styles from elsewhere. */
export function heatMapSvg({ title, rowTitle, rows, columnTitle, columns, cells }: HeatMap): string {
  const right = LEFT + WIDTH * columns.length;
  const bottom = TOP + HEIGHT * rows.length;
  // The title may be wider than the map.
  const width = Math.max(right + 10, 20 + 9 * title.length);
  const text = (x: number, y: number, content: string, rest = '') =>
    `<text x="${x}" y="${y}"${rest}>${escapeMarkup(content)}</text>`;
  const middle = ' text-anchor="middle"';
  const end = ' text-anchor="end"';
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${bottom + 46}" ` +
      `viewBox="0 0 ${width} ${bottom + 46}" font-family="sans-serif" font-size="13" role="img">`,
    `<title>${escapeMarkup(title)}</title>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    text(10, 20, title, ' font-size="15" font-weight="bold"'),
    text((LEFT + right) / 2, 42, columnTitle, middle),
    text(LEFT - 8, TOP - 8, rowTitle, end),
    ...columns.map((name, i) => text(LEFT + WIDTH * (i + 0.5), TOP - 8, name, middle)),
    ...rows.map((name, i) => text(LEFT - 8, TOP + HEIGHT * (i + 0.5) + 5, name, end)),
  ];
  for (const [i, row] of cells.entries()) {
    for (const [j, { share, label, note }] of row.entries()) {
      const colour = colourOf(share);
      const x = LEFT + WIDTH * j;
      const y = TOP + HEIGHT * i;
      const ink = ` text-anchor="middle" fill="${isBright(colour) ? '#000' : '#fff'}"`;
      lines.push(
        `<g><title>${escapeMarkup(note)}</title>` +
          `<rect x="${x}" y="${y}" width="${WIDTH - 2}" height="${HEIGHT - 2}" fill="${rgb(colour)}"/>` +
          `${text(x + WIDTH / 2 - 1, y + HEIGHT / 2 + 4, label, ink)}</g>`,
      );
    }
  }
  for (let i = 0; i <= 20; i++) {
    const fill = rgb(colourOf(i / 20));
    lines.push(`<rect x="${LEFT + 6 * i}" y="${bottom + 16}" width="6" height="10" fill="${fill}"/>`);
  }
  lines.push(text(LEFT - 8, bottom + 26, '0', end), text(LEFT + 6 * 21 + 8, bottom + 26, '1'), '</svg>');
  return lines.join('\n');
}
