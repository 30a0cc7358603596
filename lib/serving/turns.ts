/** Requests of so few tokens go before all others. */
const mostShortTokens = 16;

/**
 * Whose turn it is: two lines of streams, short requests before long ones, each first come, first served; who has had a
 * turn and wants another goes to its line's end. Tokens at work are bounded in each line on its own: a long request
 * takes nothing from the short ones, and they do not starve it.
 */
export class Turns<Stream> {
  /** The most tokens of a short request, and of a piece of a long one. */
  readonly shortTokens: number;
  readonly pieceTokens: number;
  readonly #short: Line<Stream>;
  readonly #long: Line<Stream>;

  constructor(maxBatchTokens: number) {
    this.pieceTokens = Math.max(1, Math.floor(maxBatchTokens / 2));
    this.shortTokens = Math.min(mostShortTokens, this.pieceTokens);
    this.#short = new Line(maxBatchTokens);
    this.#long = new Line(maxBatchTokens);
  }

  isShort(tokens: number): boolean {
    return tokens <= this.shortTokens;
  }

  /** The stream waits with a piece of so many tokens of a request that is short or not. */
  join(stream: Stream, short: boolean, tokens: number): void {
    this.#line(short).waiting.set(stream, tokens);
  }

  leave(stream: Stream): void {
    this.#short.waiting.delete(stream);
    this.#long.waiting.delete(stream);
  }

  /** Takes the next stream of a line, if its piece fits beside what is at work. */
  next(short: boolean): Stream | undefined {
    const line = this.#line(short);
    for (const [stream, tokens] of line.waiting) {
      if (!line.hasRoom(tokens)) return undefined;
      line.waiting.delete(stream);
      return stream;
    }
    return undefined;
  }

  /** Whether somebody waits. */
  get waited(): boolean {
    return this.#short.waiting.size > 0 || this.#long.waiting.size > 0;
  }

  /** Whether a piece of so many tokens need not wait: nobody does, and there is room for it. */
  isFree(short: boolean, tokens: number): boolean {
    const line = this.#line(short);
    return line.waiting.size === 0 && line.hasRoom(tokens);
  }

  begin(short: boolean, tokens: number): void {
    this.#line(short).atWork += tokens;
  }

  end(short: boolean, tokens: number): void {
    this.#line(short).atWork -= tokens;
  }

  #line(short: boolean): Line<Stream> {
    return short ? this.#short : this.#long;
  }
}

class Line<Stream> {
  /** In their order, with the tokens of their next piece. */
  readonly waiting = new Map<Stream, number>();
  atWork = 0;

  constructor(readonly most: number) {}

  hasRoom(tokens: number): boolean {
    return this.atWork === 0 || this.atWork + tokens <= this.most;
  }
}
