import { failed } from '../diagnostics';
import { native } from '../native';
import type { Member } from './member';
import { type Ended, type Piece, sendTogether } from './piece';
import type { Queue } from './queue';
import { type Request, shifted } from './request';
import type { Tiers } from './tiers';
import type { Turns } from './turns';

/** Pieces of one long request that are at work at once: the device has the next one when it has finished the first. */
const piecesAtOnce = 2;

/**
 * Takes requests from their lines to the device. A step is what goes there together: in each turn of the event loop
 * everything whose turn it is. No step waits for another; each piece ends by itself and makes room for the next.
 *
 * A GPU works in rounds, and begins together what comes together. The CPU takes calls as they come: what need not wait
 * for its turn is a step of its own, and not even copied before it.
 */
export class Steps {
  steps = 0;
  /** Of the requests that have succeeded. */
  tokens = 0;
  /** Requests that have had a turn and have not settled. */
  running = 0;
  #scheduled = false;

  constructor(
    readonly turns: Turns<Member>,
    readonly tiers: Tiers,
    readonly queue: Queue,
    readonly onCpu: boolean,
    readonly settled: (request: Request) => void,
  ) {}

  /** The request has become the first of its stream. */
  first(request: Request): void {
    request.order = this.tiers.nextOrder++;
    if (this.#mayGoAtOnce(request)) {
      const pieces: Piece[] = [];
      this.#turn(request.member, pieces);
      this.#dispatch(pieces);
    } else {
      this.#wants(request);
    }
  }

  /** A whole request that overtakes nobody. */
  #mayGoAtOnce(request: Request): boolean {
    const { tokens } = request;
    if (!this.onCpu || this.queue.outside.size > 0 || this.tiers.exchanging) return false;
    return this.#pieceOf(request) === tokens && this.turns.isFree(this.turns.isShort(tokens), tokens);
  }

  /** It wants a turn. */
  #wants(request: Request): void {
    const { member } = request;
    this.turns.join(member, this.turns.isShort(request.tokens), this.#pieceOf(request));
    this.schedule();
  }

  schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#step();
    });
  }

  /** Ends a request that has not settled: at once, or when what it has at work is over. */
  cut(request: Request, error: unknown): void {
    if (request.ended) return;
    if (request.pieces.size > 0) {
      this.#fail(request, error); // they settle, and report
      return;
    }
    request.failure ??= { error };
    failed(request.member.device, request.operation, error);
    if (!request.preparing) this.#end(request);
  }

  #step(): void {
    const pieces: Piece[] = [];
    for (const short of [true, false]) {
      for (let member = this.turns.next(short); member; member = this.turns.next(short)) {
        this.#turn(member, pieces);
      }
    }
    this.#dispatch(pieces);
  }

  #dispatch(pieces: readonly Piece[]): void {
    if (pieces.length === 0) return;
    this.steps++;
    sendTogether(pieces);
  }

  #turn(member: Member, pieces: Piece[]): void {
    const request = member.front;
    if (!request || request.preparing || request.failure) return;
    if (request.sent === request.tokens || request.pieces.size === piecesAtOnce) return;
    if (!this.tiers.place(member)) {
      this.#bring(member);
      return;
    }
    if (!request.started) this.#start(request);
    const whole = request.operation === 'retrieve' || this.#pieceOf(request) === request.tokens;
    if (whole || request.saved) this.#send(request, pieces);
    else this.#prepare(request);
  }

  #start(request: Request): void {
    request.started = true;
    this.running++;
    this.queue.left(request);
  }

  /** Not now: its state has to come to the device first. */
  #bring(member: Member): void {
    const wanted = member.front as Request;
    const again = () => {
      if (member.front) this.#wants(member.front);
    };
    this.tiers.bring(member).then(again, (error) => {
      if (member.front === wanted) this.cut(wanted, error);
      else again();
    });
  }

  /** Not now: what it may have to go back to is saved first. */
  #prepare(request: Request): void {
    if (request.member.tokens === 0) {
      request.saved = { image: undefined };
      this.#wants(request);
      return;
    }
    request.preparing = true;
    this.tiers
      .save(request.member)
      .then(
        (saved) => {
          request.saved = saved;
        },
        (error) => {
          failed(request.member.device, 'swap', error);
          request.failure ??= { error };
        },
      )
      .then(() => {
        request.preparing = false;
        if (request.failure) this.#end(request);
        else this.#wants(request);
      });
  }

  /** The next piece goes to the device. */
  #send(request: Request, pieces: Piece[]): void {
    const { member, sent } = request;
    const core = member.core as NonNullable<typeof member.core>;
    const tokens = this.#pieceOf(request);
    const short = this.turns.isShort(request.tokens);
    const ended: Ended = (failure) => {
      this.turns.end(short, tokens);
      request.pieces.delete(piece);
      request.fresh = false;
      if (failure) this.#fail(request, shifted(failure.error, sent));
      else request.done += tokens;
      this.#go(request);
    };
    let piece: Piece;
    try {
      piece = request.piece(tokens, core, ended);
    } catch (error) {
      this.cut(request, error);
      return;
    }
    request.sent += tokens;
    request.pieces.add(piece);
    this.turns.begin(short, tokens);
    pieces.push(piece);
    this.#more(request);
  }

  #fail(request: Request, error: unknown): void {
    request.failure ??= { error };
    if (request.pieces.size > 0) native.cancel(Array.from(request.pieces, ({ ticket }) => ticket));
  }

  /** A piece is over: the request goes on, or ends with its last one. */
  #go(request: Request): void {
    if (this.turns.waited) this.schedule();
    this.tiers.changed();
    if (request.done === request.tokens || (request.failure && request.pieces.size === 0)) this.#end(request);
    else if (!request.failure) this.#more(request);
  }

  /** To the end of the line for its next piece. */
  #more(request: Request): void {
    if (request.sent < request.tokens && request.pieces.size < piecesAtOnce) this.#wants(request);
  }

  #end(request: Request): void {
    const { member, saved, failure, done, tokens } = request;
    const succeeded = done === tokens; // an abort may come too late
    const place = member.requests.indexOf(request);
    if (place >= 0) member.requests.splice(place, 1);
    if (place === 0) this.turns.leave(member);
    if (request.started) this.running--;
    else this.queue.left(request);
    this.queue.settled(request);
    if (succeeded && request.operation === 'attend') member.tokens += tokens;
    if (saved) {
      this.tiers.forget(saved);
      if (done > 0 && !succeeded && !member.closed) this.tiers.restore(member, saved);
    }
    if (succeeded) {
      this.tokens += request.operation === 'attend' ? tokens : 0;
      request.succeed();
    } else {
      request.fail(failure?.error);
    }
    if (place === 0 && member.front) this.first(member.front);
    this.tiers.changed();
    this.settled(request);
  }

  /** To the last border of a segment that it reaches, if it does not reach the request's end. */
  #pieceOf({ operation, member, tokens, sent }: Request): number {
    const { pieceTokens } = this.turns;
    const rest = tokens - sent;
    if (rest <= pieceTokens || operation === 'retrieve') return Math.min(rest, pieceTokens);
    const { segmentLength } = member.config;
    const position = (member.tokens + sent) % segmentLength;
    const border = Math.floor((position + pieceTokens) / segmentLength) * segmentLength;
    return border > position ? border - position : pieceTokens;
  }
}
