import { Presets, SingleBar } from 'cli-progress';
import { count } from './format';

const LINE_EVERY_MS = 10_000;

/**
 * A bar on a terminal, a line every tenth of the way elsewhere; always on standard error. Where nobody knows how long the
 * way is, it says how far it went.
 */
export class Progress {
  readonly #label: string;
  readonly #total: number | undefined;
  readonly #unit: string;
  readonly #started = performance.now();
  readonly #bar?: SingleBar;
  #lines = 0;

  constructor(label: string, total: number | undefined, unit: string) {
    this.#label = label;
    this.#total = total;
    this.#unit = unit;
    if (!process.stderr.isTTY) return;
    const [share, left] =
      total === undefined ? ['', ''] : ['{bar} {percentage}%  ', '  {eta_formatted} left'];
    const format = `  ${label} ${share}{done} ${unit}  {rate}/s{note}${left}`;
    this.#bar = new SingleBar(
      { format, stream: process.stderr, barsize: 16, fps: 8 },
      Presets.shades_classic,
    );
    this.#bar.start(total ?? 0, 0, { done: '0', rate: '-', note: '' });
  }

  /** `note`: what else is known by now. */
  update(done: number, note = ''): void {
    const elapsed = performance.now() - this.#started;
    const rate = count((1000 * done) / elapsed);
    const behind = note === '' ? '' : `  ${note}`;
    if (this.#bar) {
      this.#bar.update(done, { done: count(done), rate, note: behind });
      return;
    }
    const lines =
      this.#total === undefined ? Math.floor(elapsed / LINE_EVERY_MS) : Math.floor((10 * done) / this.#total);
    if (lines === this.#lines) return;
    this.#lines = lines;
    const share = this.#total === undefined ? '' : `${lines * 10}%  `;
    console.error(`  ${this.#label} ${share}${count(done)} ${this.#unit}  ${rate} ${this.#unit}/s${behind}`);
  }

  stop(): void {
    this.#bar?.stop();
  }
}

/** What is being done just now: on a terminal, in a line that the next note replaces, and an empty one clears. */
export function note(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(text === '' ? '\r\x1b[K' : `\r\x1b[K    ${text}`);
}
