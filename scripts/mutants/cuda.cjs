// The faults that the kernels' tests must find: for each file the parts of the names of the tests to run, then what is
// wrong, what stands in the source (exactly once), what is put in its place and, where no test can see it, the proof.

const files = {
  'features.cuh': [
    ['forward', 'state', 'decode'],
    ['sigma is cut off at -40', 'x < -87.0f ? 0.0f', 'x < -40.0f ? 0.0f'],
    ['sigma of a positive number is the number', 'x > 0.0f ? x + 1.0f', 'x > 0.0f ? x'],
    ['a row that meets nothing is divided by 0', 'mass > 0.0f ? 1.0f / mass : 0.0f', '1.0f / mass'],
    [
      'rows of the largest sigma are scaled to 0',
      'exponent < 253 ? 254 - exponent : 1',
      'exponent < 253 ? 254 - exponent : 0',
    ],
    ['negative numbers beyond the range are finite', 'return fabsf(x) <=', 'return x <='],
    ['the last failure counts, not the first', 'atomicMin(failure', 'atomicMax(failure'],
    ['a failure is noted without its site', 'token * 8 + site', 'token * 8'],
    [
      'columns that hold nothing count for the scale',
      'return normalizer > 0.0f ? feature : 0.0f;',
      'return feature;',
    ],
  ],
  'elements.cuh': [
    ['forward', 'state', 'decode'],
    [
      'the rest of a split number has the wrong sign',
      '__float2bfloat16_rn(x - high)',
      '__float2bfloat16_rn(high - x)',
    ],
    ['float16 loses its sign when unpacked', 'uint16_t(pair >> 16)', 'uint16_t(pair >> 16 & 0x7fff)'],
  ],
  'pieces.cuh': [
    ['forward', 'state', 'decode'],
    ['every piece continues the open segment', 'index == 0 ? job.open : 0', 'job.open'],
    ['later pieces begin where the call does', 'begin > 0 ? int(begin) : 0', '0'],
    ['the last piece is as long as a segment', '(end < job.tokens ? int(end) : job.tokens)', 'int(end)'],
    ['the first fresh row is read from the cache', 'position < open;', 'position <= open;'],
    [
      'fresh rows are counted from the start of the segment',
      'is_cached ? position : position - open',
      'position',
    ],
    ['cached rows lie as far apart as fresh ones', '(is_cached ? dim : stride)', 'stride'],
    [
      'all heads read the cache of the first',
      '(long long)kv_head * shape.segment_length * dim',
      '0 * kv_head',
    ],
    [
      'all heads read the first head of the call',
      'piece.token * stride + kv_head * dim',
      'piece.token * stride',
    ],
  ],
  'tile.cuh': [
    ['forward', 'state'],
    ['eight rows meet in four groups of banks', '(chunk ^ (row & 7)) << 4', '(chunk ^ (row & 3)) << 4'],
    ['rows that do not exist are copied', 'inside && exists(row) ? 16 : 0', 'inside ? 16 : 0'],
    ['columns that do not exist are copied', 'inside && exists(row) ? 16 : 0', 'exists(row) ? 16 : 0'],
    [
      'unaligned rows that do not exist are copied',
      'column < columns && exists(row) ?',
      'column < columns ?',
    ],
    ['unaligned columns that do not exist are copied', 'column < columns && exists(row) ?', 'exists(row) ?'],
    [
      'the upper half of wide rows lies in the lower',
      'row * kRowBytes + (chunk >> 3 << 7)',
      'row * kRowBytes',
    ],
  ],
  'fragments.cuh': [
    ['forward', 'state', 'decode'],
    ['float32 loses the low part of A', 'ptx::mma_tf32(part, a_low, b_high);', ''],
    ['float32 loses the low part of B', 'ptx::mma_tf32(part, a_high, b_low);', ''],
    [
      'weights of float32 in another order than values',
      'a.x[step][1] = from[2];\n      a.x[step][2] = from[1];',
      'a.x[step][1] = from[1];\n      a.x[step][2] = from[2];',
    ],
    [
      'lanes deal k of float32 in natural order only',
      't + 4 * half : 2 * t + half',
      't + 4 * half : t + 4 * half',
    ],
    ['float16 multiplies as bfloat16', 'ptx::mma_f16(acc, a.r, b.r);', 'ptx::mma_bf16(acc, a.r, b.r);'],
  ],
  'rotary.cuh': [
    ['forward'],
    ['pairs turn the other way', 'x * turn.x - y * turn.y', 'x * turn.x + y * turn.y'],
    [
      'unaligned pairs are neighbours',
      'tile.at(row, column + half), turns[i]',
      'tile.at(row, column + 1), turns[i]',
    ],
    ['unaligned rows all turn as the first', 'turns[i], factor', 'turns[column], factor'],
    ['rows all turn as the first', 'turns + row * half + chunk', 'turns + chunk'],
    ['queries are not scaled', 'from_float<T>(factor * to_float(a[j]))', 'from_float<T>(to_float(a[j]))'],
    ['turned queries are not scaled', 'a = from_float<T>(factor * (', 'a = from_float<T>(('],
  ],
  'retrieval.cuh': [
    ['forward', 'retrieve'],
    ['both terms of M are the first', 'kSlice == kRows ? 0 : row / kSlice', '0'],
    ['columns that hold nothing weigh as others', 'normalizer > 0.0f ? -87.0f : INFINITY', '-87.0f'],
    ['half of a row is summed', '__shfl_xor_sync(~0u, x, 2)', '__shfl_xor_sync(~0u, x, 1)'],
    ['the memory is read without its gate', 'gate * row_share(sum)', 'row_share(sum)'],
    ['features of 16-bit rows above 0 are exponentials', '+ fmaxf(x, 0.0f)', '+ fmaxf(x, 1.0f)'],
    [
      'features are not scaled back',
      '* weights.scale[strip][half] * weights.share[strip][half]',
      '* weights.share[strip][half]',
    ],
    ['the second half of a feature is lost', 'low[i] = features[strip][i] - high[i];', 'low[i] = 0.0f;'],
    ['the second term of M is read where the first is', 'slice, kSlice + k, n)', 'slice, k, n)'],
  ],
  'outputs.cuh': [
    ['forward', 'retrieve'],
    [
      'neighbouring columns are exchanged',
      'pack_rounded<T>(written.x, written.y)',
      'pack_rounded<T>(written.y, written.x)',
    ],
    [
      'odd columns may be infinite',
      'poisoned(poisoned(poison, written.x), written.y)',
      'poisoned(poison, written.x)',
    ],
    ['a warp reads its rows before they are written', '  __syncwarp();\n', ''],
    ['rows beyond the tensor are written', 'if (at < rows && chunk * Shared', 'if (chunk * Shared'],
    [
      'columns beyond the tensor are written',
      '&& chunk * Shared::kPerChunk < columns) {\n        const',
      ') {\n        const',
    ],
    [
      'unaligned columns beyond the tensor are written',
      'if (at < rows && column < columns)',
      'if (at < rows)',
    ],
  ],
  'forward.cu': [
    ['forward'],
    [
      'the next keys arrive over the values of this step',
      'load_tile(work.keys, next, 2 * step + 2)',
      'load_tile(work.keys, next, 2 * step + 1)',
    ],
    ['the local part is not gated', 'work.local_gate / (mass', '1.0f / (mass'],
    [
      'keys on the diagonal of the last column are not hidden',
      'if (ahead < kKeys - 1) {',
      'if (ahead < kKeys - 2) {',
    ],
    [
      'values are read in another order than weights',
      'load_b_transposed<Order::Accumulator>',
      'load_b_transposed<Order::Natural>',
    ],
    [
      'query heads meet the wrong key-value head',
      'head / (shape.heads / shape.kv_heads)',
      'head % shape.kv_heads',
    ],
    ['tiles that share keys are counted beyond the list', 'min(kTogether, tile_count - first)', 'kTogether'],
    ['a memory that this call fills is not read', 'job.absorbed || tile.piece > 0', 'job.absorbed'],
    ["all jobs read the first one's memory", 'job.first_piece + tile.piece', 'tile.piece'],
    [
      "emptyRead 'local' stays in force",
      'work.remembers || !shape.local_when_empty',
      '!shape.local_when_empty',
    ],
    ['failures count within the job', 'job.first_token + token', 'token'],
    [
      'failures count within the tile',
      'note_failure(work.failure, work.first_token + at, kOutput);',
      'note_failure(work.failure, at, kOutput);',
    ],
    [
      'all tiles of a piece see as much as its first',
      'work.start = piece.start + done;',
      'work.start = piece.start;',
    ],
    ['rows beyond the piece are computed', 'min(kRows, piece.count - done)', 'kRows'],
    [
      'keys are used while they arrive',
      'ptx::cp_async_wait<1>();\n    __syncthreads();\n    if (next < work.start + work.rows) {\n      load_tile(work.keys',
      'ptx::cp_async_wait<2>();\n    __syncthreads();\n    if (next < work.start + work.rows) {\n      load_tile(work.keys',
    ],
    [
      'values are used while they arrive',
      'ptx::cp_async_wait<1>();\n    __syncthreads();\n    if (next < work.start + work.rows) {\n      load_tile(work.values',
      'ptx::cp_async_wait<2>();\n    __syncthreads();\n    if (next < work.start + work.rows) {\n      load_tile(work.values',
    ],
    [
      'values arrive over keys that others still read',
      'ptx::cp_async_wait<1>();\n    __syncthreads();\n    if (next < work.start + work.rows) {\n      load_tile(work.values',
      'ptx::cp_async_wait<1>();\n    if (next < work.start + work.rows) {\n      load_tile(work.values',
    ],
    [
      'scores begin before all keys are turned',
      'shape.rotary + first * half_dim);\n      __syncthreads();',
      'shape.rotary + first * half_dim);',
    ],
    ['keys turn by their place in the step', 'shape.rotary + first * half_dim', 'shape.rotary'],
    ['queries turn by their place in the tile', 'shape.rotary + work.start * half_dim', 'shape.rotary'],
    ['the memory is read with turned queries', 'if (work.remembers) load_queries();  // as they were', ''],
    ['slices of the memory come twice', 'load_memory(first + 2 * kSlice', 'load_memory(first + kSlice'],
    ['a warp skips the keys on its diagonal', 'ahead + 16 * kStrips > 0', 'ahead > 0'],
    ['logits far below 0 may be infinite', 'is_finite(lowest) && is_finite(top)', 'is_finite(top)'],
  ],
  'softmax.cuh': [
    ['forward'],
    ['a row does not see its own key', '8 * n + i > visible', '8 * n + i >= visible'],
    ['the mask slants', '(lane >> 2) - 2 * (lane & 3)', '(lane >> 2) - (lane & 3)'],
    ['odd columns are not rescaled to the new top', 'acc[strip][n][2 * half + 1] *= factor;', ''],
    ['old weights grow instead of shrinking', '(before - top) * scale.score', '(top - before) * scale.score'],
    [
      'some lanes of a warp raise their tops',
      'if (!__any_sync(~0u, exceeds)) return;',
      'if (!exceeds) return;',
    ],
    [
      'tops stay until they are exceeded by far',
      'constexpr float kSlack = 8.0f;',
      'constexpr float kSlack = 300.0f;',
    ],
    ['large logits lose their differences', 'if (!(fabsf(base) < kLarge)) {', 'if (false) {'],
    ['the mass is not rescaled to the new top', 'rows.mass[strip][half] *= factor;', ''],
  ],
  'key_sums.cu': [
    ['state'],
    [
      'the row behind the segment is read',
      'if (position >= shape.segment_length ||',
      'if (position > shape.segment_length ||',
    ],
    [
      'the row behind the segment is counted',
      'if (base + pass * kRows >= shape.segment_length ||',
      'if (base + pass * kRows > shape.segment_length ||',
    ],
    ['half of a warp is left out', 'distance = kLanes; distance < 32;', 'distance = kLanes; distance < 16;'],
    [
      'warps are added before they have summed',
      '  __syncthreads();\n  if (int(threadIdx.x) < min(kSlab',
      '  if (int(threadIdx.x) < min(kSlab',
    ],
    [
      'the last warp is left out',
      'for (int warp = 0; warp < kWarps; ++warp) sum',
      'for (int warp = 0; warp + 1 < kWarps; ++warp) sum',
    ],
    ['all sums are float32', 'total[i] += sum[i];', 'total[i] = float(total[i]) + sum[i];'],
  ],
  'normalizers.cu': [
    ['state'],
    ['z of an empty memory is read', 'exists && job.absorbed ? job.normalizer', 'exists ? job.normalizer'],
    ['sums of an open segment are added', 'exists && index < job.borders ? key_sums', 'exists ? key_sums'],
    [
      'z is published after the segment',
      'float(z);\n      z += added[ahead];',
      'float(z + added[ahead]);\n      z += added[ahead];',
    ],
    [
      'all jobs add the sums of the first',
      '(long long)job.first_border * shape.kv_heads * shape.head_dim',
      '0 * job.first_border',
    ],
    ['z is kept in float32', 'z += added[ahead];', 'z = float(z + added[ahead]);'],
    [
      'an open piece checks z again',
      'if (index < job.borders && !is_finite',
      'if (!is_finite',
      'no segment ends there, so z is what the border before has checked',
    ],
  ],
  'sums.cu': [
    ['state'],
    ['sigma is one bfloat16', 'if constexpr (kPairs) add(low);', ''],
    ['float16 values are one bfloat16', 'kEnoughShares : kValuePairs) {}', 'kEnoughShares : false) {}'],
    [
      'chunks are added in another order when whole',
      'if ((first + kStep) % kChunkTokens == 0 || first + kStep >= end) {',
      'if (first + kStep >= end) {',
    ],
    ['only the last chunk is kept', 'task.parts == 1 && first >= kChunkTokens', 'false'],
    [
      'operands are multiplied while they are made',
      'convert(end - first, stage);\n      __syncthreads();',
      'convert(end - first, stage);',
    ],
    [
      'the next step arrives over this one',
      'load(first + kStep, end, 1 - stage)',
      'load(first + kStep, end, stage)',
    ],
    ['shares are not divided by their mass', 'key.x[c][i] *= inverse;', ''],
    ['all slabs sum the values of the first', 'common.values.fresh += first_column;', ''],
    [
      'the last chunk reads beyond the segment',
      'parts > 1 ? min(begin + kChunkTokens, shape.segment_length)',
      'parts > 1 ? begin + kChunkTokens',
    ],
    [
      'few shares are rounded like many',
      'constexpr int kEnoughShares = 16384;',
      'constexpr int kEnoughShares = 0;',
    ],
    [
      'a step begins while others are in the one before',
      '    __syncthreads();  // this step is here',
      '    // this step is here',
    ],
    ['rows behind the segment have sigma 1', 'row < count ? sigma(key.x[c][i]) : 0.0f', 'sigma(key.x[c][i])'],
    [
      'shares of a row are summed by half of its threads',
      'for (int distance = 1; distance < kLanes; distance *= 2) x +=',
      'for (int distance = 1; distance < kLanes / 2; distance *= 2) x +=',
    ],
  ],
  'chain.cu': [
    ['state'],
    [
      'sums are used while they arrive',
      'ptx::cp_async_wait<kStages - 2>();',
      'ptx::cp_async_wait<kStages - 1>();',
    ],
    ['the memory that this call fills is not corrected', 'job_.absorbed || border > 0', 'job_.absorbed'],
    [
      'what the memory holds is added, not subtracted',
      '= -memory[r][i] * inverse;',
      '= memory[r][i] * inverse;',
    ],
    [
      'a product begins before M / z is there',
      '      __syncthreads();\n#pragma unroll 1',
      '#pragma unroll 1',
    ],
    [
      'M / z changes while others multiply',
      '      }\n      __syncthreads();\n    }\n\n    bool finite',
      '      }\n    }\n\n    bool finite',
    ],
    [
      'M is forgotten at a border',
      'key_unit(workspace.key_sums[border * shape.head_dim + row + 8 * r]) : 0.0f;',
      'key_unit(workspace.key_sums[border * shape.head_dim + row + 8 * r]) : 0.0f;\n      memory[r][0] = 0.0f;',
    ],
    ['only the last column may not be infinite', 'finite = finite && is_finite', 'finite = is_finite'],
    [
      'snapshots of all jobs lie in one place',
      '(long long)(job.first_piece + piece) * shape.kv_heads',
      '(long long)piece * shape.kv_heads',
    ],
    ['the linear rule corrects as the delta rule does', 'return shape_.delta && (', 'return ('],
    ['only the first chunk is added', 'x[0] += a.x,', 'x[0] = a.x,'],
    [
      'the next border reads the sums of this one',
      'head_ += (long long)shape_.kv_heads * parts_ * rows_ * columns_;',
      '',
    ],
  ],
  'state.cuh': [
    ['state'],
    ['a segment that ends in the call fails at another token', '- job.open - 1;', '- 1;'],
    ['what holds nothing is infinite', 'return x > 0.0f ? 1.0f / x : 0.0f;', 'return 1.0f / x;'],
  ],
  'decode.cu': [
    ['decode'],
    [
      'weights of large values overflow',
      'template <class T> constexpr float kOffset = -17.0f;',
      'template <class T> constexpr float kOffset = 17.0f;',
    ],
    ['tokens of one call do not see each other', 'job.open + block.token(row) + 1, job', 'job.open + 1, job'],
    ['sums are not rescaled to the new top', 'sums.columns[n][i] *= rescale[i / 2];', ''],
    ['the mass is not rescaled to the new top', 'sums.mass[half] *= rescale[half];', ''],
    ['the tickets are left as they are', 'if (last) atomicExch(tickets + record, 0);', ''],
    [
      'keys are not appended',
      'append(block, key_rows<T>(job, shape, piece, block.kv_head), job.cached_keys, begin, end);',
      '',
    ],
    [
      'a token is appended one position late',
      'to[(long long)position * rows.dim + i]',
      'to[(long long)(position + 1) * rows.dim + i]',
    ],
    [
      'values are used while they arrive',
      'weigh<T>(scores, sums, block, scale, visible);\n    ptx::cp_async_wait<1>();',
      'weigh<T>(scores, sums, block, scale, visible);\n    ptx::cp_async_wait<2>();',
    ],
    [
      'features of all splits are those of the first',
      'feature(first + i) * scale * share',
      'feature(i) * scale * share',
    ],
  ],
  'decode_merge.cuh': [
    ['decode'],
    [
      'an empty memory is read',
      'const int first = job.absorbed ? 0 : memory_splits,',
      'const int first = 0,',
    ],
    ['the gate and its rest are exchanged', 'weights[i] = gate.x;', 'weights[i] = gate.y;'],
    ['a merge of splits forgets their tops', 'relative_weight(row_stats[i].x, top) * local', 'local'],
    [
      "emptyRead 'local' stays in force",
      'job.absorbed || !shape.local_when_empty ?',
      '!shape.local_when_empty ?',
    ],
    [
      'failures count within the job',
      'job.first_token + block.token(row), kOutput',
      'block.token(row), kOutput',
    ],
  ],
  'upkeep.cu': [
    ['append_', 'check_'],
    ['an open piece is appended where the segment begins', 'piece.start + first, min(', 'first, min('],
    [
      'the end of a tensor is not looked at',
      'i + k < end ? values[i + k] : from_float<T>(0.0f)',
      'from_float<T>(0.0f)',
    ],
    ['a call is numbered by its job', 'job.first_token + (i + k) / width', '(i + k) / width'],
    [
      'heads of queries are counted as those of keys',
      'job.query, shape.heads * shape',
      'job.query, shape.kv_heads * shape',
    ],
    ['tokens of a block are written over one another', 'tokens.position + token;', 'tokens.position;'],
    ['the last piece is appended though it is full', 'if (job.pieces == job.borders) return;', ''],
    [
      'another piece than the last is appended',
      'piece_of(job, shape, job.pieces - 1)',
      'piece_of(job, shape, 0)',
    ],
  ],
};

module.exports = Object.entries(files).flatMap(([file, [tests, ...faults]]) =>
  faults.map(([name, find, replace, equivalent]) => {
    return { file: `cuda/kernels/${file}`, tests, name, find, replace, equivalent };
  }),
);
