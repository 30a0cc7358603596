/** 1234567 -> '1,234,567' */
export const count = (value: number): string => Math.round(value).toLocaleString('en-US');

/** Three digits and a decimal unit. */
export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let power = 0;
  let scaled = value;
  while (scaled >= 999.5 && power < units.length - 1) {
    scaled /= 1000;
    power++;
  }
  const decimals = power === 0 || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  return `${scaled.toFixed(decimals)} ${units[power]}`;
}

export const plural = (n: number, word: string): string => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** 32768 -> '32K', 1048576 -> '1M', as in papers; other numbers as they are. */
export function lengthName(tokens: number): string {
  if (tokens > 0 && tokens % 2 ** 20 === 0) return `${tokens / 2 ** 20}M`;
  return tokens > 0 && tokens % 2 ** 10 === 0 ? `${tokens / 2 ** 10}K` : count(tokens);
}

/** Aligns columns: numbers to the right ('>'), words to the left ('<'). The first row is the heading. */
export function table(rows: string[][], align: string, indent = '  '): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row: string[]) =>
    row.map((cell, i) => (align[i] === '>' ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  ');
  return rows.map((row) => (indent + line(row)).trimEnd()).join('\n');
}

export function median(values: number[]): number {
  return quantile(values, 0.5);
}

/** Linear between neighbours; NaN when there is nothing to order. */
export function quantile(values: number[], at: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const place = (sorted.length - 1) * at;
  const low = Math.floor(place);
  return sorted[low] + (sorted[Math.ceil(place)] - sorted[low]) * (place - low);
}
