// Which tokens of a segment a decode benchmark times: as many before half a segment as after it. Their mean work is
// then that of the one token behind half a segment that kernel_bench times, and none of them fills the segment.

/**
 * warm: untimed steps at first (one of a prepared batch that launches by itself, one that captures the graph, one that
 * runs it); steps: timed ones, at most `most`; before: tokens of the open segment that come before both.
 */
function windowOf(segmentLength, most) {
  const warm = 3;
  const middle = segmentLength >> 1;
  const aside = Math.min((most - 1) >> 1, middle - warm, segmentLength - middle - 2);
  if (aside < 0) throw new Error(`a segment of ${segmentLength} tokens is too short to time steps in`);
  return { before: middle - warm - aside, warm, steps: 2 * aside + 1, open: middle };
}

module.exports = { windowOf };
