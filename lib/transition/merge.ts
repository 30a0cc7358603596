import { checkArray } from '../config';
import { fail } from '../errors';
import type { MemoryStream } from '../stream';
import type { StreamCore } from '../stream-core';
import { checkSettled, checkStream } from './apply';
import { composed } from './compose';
import { streamWith } from './restore';
import { checkSameShape, transitionFromEmpty } from './transition';

const most = 4096;

/**
 * A new stream that has absorbed what all of these have, on the device of the first and with its configuration: for the
 * linear rule the sums of M and z, which know no order. Sums are float64, M is rounded to float32 once. The streams, on
 * whatever devices, are as before; their heads, gates and types may differ, not what shapes the memory.
 * @throws ERR_INVALID_ARG_TYPE, ERR_CLOSED, ERR_BUSY (a pending call, or a stream that occurs twice), ERR_OUT_OF_RANGE
 * (no streams or more than 4096, the delta rule, other shapes, an open segment, sums beyond float32),
 * ERR_OUT_OF_MEMORY, ERR_DEVICE.
 */
export function mergeStreams(streams: readonly MemoryStream[]): MemoryStream {
  const length = checkArray(streams, 'streams', 1, most);
  const cores = Array.from({ length }, (_, i) => checkStream(streams[i], `streams[${i}]`));
  const seen = new Set<StreamCore>();
  for (const [i, core] of cores.entries()) {
    if (seen.has(core)) throw fail('ERR_BUSY', `Expected distinct streams but "streams[${i}]" occurs twice`);
    seen.add(core);
    if (core.config.rule !== 'linear') {
      const instead = 'export transitions and compose them';
      throw fail('ERR_OUT_OF_RANGE', `Expected rule 'linear' in "streams[${i}]" (delta: ${instead})`);
    }
    checkSameShape(`streams[${i}]`, core.config, cores[0].config);
    checkSettled(core, `streams[${i}]`, 'mergeStreams');
  }
  const { tokens, B, normalizer } = composed(
    cores.map((core) => transitionFromEmpty(core.config, core.tokens, core.memory())),
    'streams',
  );
  return streamWith(cores[0], tokens, B, normalizer);
}
