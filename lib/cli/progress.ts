import { Presets, SingleBar } from 'cli-progress';
import { count } from './format';

/** A bar on a terminal, a line every tenth of the way elsewhere; always on standard error. */
export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #unit: string;
  readonly #started = performance.now();
  readonly #bar?: SingleBar;
  #tenths = 0;

  constructor(label: string, total: number, unit: string) {
    this.#label = label;
    this.#total = total;
    this.#unit = unit;
    if (!process.stderr.isTTY) return;
    const format = `  ${label} {bar} {percentage}%  {done} ${unit}  {rate}/s  {eta_formatted} left`;
    this.#bar = new SingleBar(
      { format, stream: process.stderr, barsize: 16, fps: 8 },
      Presets.shades_classic,
    );
    this.#bar.start(total, 0, { done: '0', rate: '-' });
  }

  update(done: number): void {
    const rate = count((1000 * done) / (performance.now() - this.#started));
    if (this.#bar) {
      this.#bar.update(done, { done: count(done), rate });
      return;
    }
    const tenths = Math.floor((10 * done) / this.#total);
    if (tenths === this.#tenths) return;
    this.#tenths = tenths;
    console.error(`  ${this.#label} ${tenths * 10}%  ${count(done)} ${this.#unit}  ${rate} ${this.#unit}/s`);
  }

  stop(): void {
    this.#bar?.stop();
  }
}
