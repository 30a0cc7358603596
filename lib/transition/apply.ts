import { expected } from '../errors';
import { coreOf, type MemoryStream } from '../stream';
import type { StreamCore } from '../stream-core';
import { product, sum } from './matrix';
import { streamWith } from './restore';
import {
  checkFollows,
  checkSameShape,
  checkSegmentBorder,
  checkTokens,
  readTransition,
  type Transition,
} from './transition';

/**
 * A new stream: as the given one would be after the transition's tokens, M' = A M + B. It has that stream's
 * configuration and device; the given one is as before. Works on the calling thread: kvHeads headDim² valueDim
 * multiplications for the delta rule.
 * @throws ERR_INVALID_ARG_TYPE, ERR_SHAPE, ERR_CLOSED, ERR_BUSY, ERR_OUT_OF_RANGE (the stream has an open segment;
 * another configuration; a transition of the delta rule recorded after other tokens than the stream's; numbers beyond
 * their range), ERR_OUT_OF_MEMORY, ERR_DEVICE.
 */
export function applyTransition(stream: MemoryStream, transition: Transition): MemoryStream {
  const core = checkStream(stream, 'stream');
  const given = readTransition(transition, 'transition');
  checkSettled(core, 'stream', 'applyTransition');
  checkSameShape('transition', given, core.config);
  const { kvHeads, headDim, valueDim } = core.config;
  const { matrix, normalizer } = core.memory();
  checkFollows('transition', given, normalizer);
  const moved = given.A ? product(given.A, matrix, kvHeads, headDim, valueDim) : matrix;
  const tokens = core.tokens + given.tokens;
  checkTokens(tokens, 'transition');
  return streamWith(core, tokens, sum(moved, given.B), sum(normalizer, given.normalizer));
}

export function checkStream(stream: unknown, name: string): StreamCore {
  const core = coreOf(stream);
  if (core) return core;
  throw expected('ERR_INVALID_ARG_TYPE', name, 'a MemoryStream', stream);
}

/** Open, with no call pending and no segment open. */
export function checkSettled(core: StreamCore, name: string, method: string): void {
  core.checkOpen();
  core.checkIdle(method);
  checkSegmentBorder(name, core.tokens, core.config.segmentLength);
}
