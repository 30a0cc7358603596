import { attended, begin, failed } from '../diagnostics';
import { abortError, type InfiniError } from '../errors';
import { type NativeOperand, native, type Settle } from '../native';
import type { StreamCore } from '../stream-core';
import type { Tensor } from '../types';

/** How a piece ends: without an error it has taken effect, and its result is in place. */
export type Ended = (failure?: { readonly error: unknown }) => void;

/**
 * What goes to the device of a request: its tokens, or a part of them. Its arrays are the request's own and were checked with
 * it, so there is nothing of what a stream's call looks after.
 */
export class Piece {
  /** Of the queued call. */
  ticket = 0;
  readonly #began = begin();

  constructor(
    readonly core: StreamCore,
    readonly operation: 'attend' | 'retrieve',
    readonly tokens: number,
    /** q, k and v, or q alone. */
    readonly inputs: readonly NativeOperand[],
    readonly out: Tensor,
    readonly ended: Ended,
  ) {}

  /** It has a place in the device's queue. */
  queued(ticket: number): void {
    this.ticket = ticket;
    this.core.begin();
  }

  /** It has none. */
  refused(error: unknown): void {
    failed(this.core.device, this.operation, error);
    queueMicrotask(() => this.ended({ error })); // whoever sends it goes on first
  }

  /** For native code to call, once. */
  readonly settle: Settle = (error, tokens) => {
    const { core, operation } = this;
    core.end();
    try {
      if (error) throw (error as InfiniError).code === 'ABORT_ERR' ? abortError(undefined) : error;
      const segments = core.committed(tokens);
      native.take(this.out);
      if (operation === 'attend') attended(core.device, this.#began, this.tokens, segments);
    } catch (failure) {
      failed(core.device, operation, failure);
      this.ended({ error: failure });
      return;
    }
    this.ended();
  };
}

type Call = Parameters<typeof native.attend>;
const attendOf = ({ core, inputs, settle }: Piece): Call => {
  const [q, k, v] = inputs as [NativeOperand, NativeOperand, NativeOperand];
  return [core.native, q, k, v, undefined, settle];
};

/** All of them at once, so that a device that works in rounds begins them in one. Each says by itself how it ends. */
export function sendTogether(pieces: readonly Piece[]): void {
  const attends: Piece[] = [];
  for (const piece of pieces) {
    if (piece.operation === 'attend') attends.push(piece);
    else
      send(piece, ({ core, inputs, settle }) => native.retrieve(core.native, inputs[0], undefined, settle));
  }
  if (attends.length === 1) send(attends[0], (piece) => native.attend(...attendOf(piece)));
  if (attends.length < 2) return;
  try {
    const outcomes = native.attendMany(attends.map(attendOf));
    for (const [i, piece] of attends.entries()) {
      const outcome = outcomes[i];
      if (typeof outcome === 'number') piece.queued(outcome);
      else piece.refused(outcome);
    }
  } catch (error) {
    for (const piece of attends) piece.refused(error); // no thread could be had: none was queued
  }
}

function send(piece: Piece, submit: (piece: Piece) => number): void {
  try {
    piece.queued(submit(piece));
  } catch (error) {
    piece.refused(error);
  }
}
