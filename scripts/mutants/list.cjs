// The faults that the tests must find: each a place in the sources, what stands there, what is put in its place.
// `find` must occur exactly once, so that a fault whose place has moved is noticed.

module.exports = [
  // ---- local attention
  {
    name: 'the causal mask lets a token see the next one',
    file: 'native/cpu/attention.h',
    find: 'tile.sees[row] = work.start + source / work.queries.group + 1;',
    replace:
      'tile.sees[row] = work.start + source / work.queries.group + 1;\n    tile.sees[row] += tile.sees[row] < work.segment.length;',
  },
  {
    name: 'the sum of earlier blocks is not rescaled to the new maximum',
    file: 'native/cpu/attention.h',
    find: 'load<double>(sum + j) * rescale + load<double>(block + j)',
    replace: 'load<double>(sum + j) + load<double>(block + j)',
  },
  {
    name: 'the mass of earlier blocks is not rescaled to the new maximum',
    file: 'native/cpu/softmax.h',
    find: 'load<double>(mass) * tile.rescale[row] + (',
    replace: 'load<double>(mass) + (',
  },
  {
    name: 'blocks that wait for float64 are forgotten when a row needs a largest score',
    file: 'native/cpu/attention.h',
    find: 'if (tile.pending[row] && tile.rescale[row] != 1) {',
    replace: 'if (false) {',
  },
  {
    name: 'precision: tiny sums of weighted values are trusted',
    file: 'native/cpu/attention.h',
    find: '(double a, double b) { return a > b ? a : b; }) < kSmallestResult) trusted[row] = false;',
    replace: '(double a, double b) { return a > b ? a : b; }) < 0) trusted[row] = false;',
  },
  {
    name: 'a block that only begins at the newest token is skipped',
    file: 'native/cpu/attention.h',
    find: 'for (int64_t key = 0; key < tile.sees[tile.rows - 1]; key += kBlock)',
    replace: 'for (int64_t key = 0; key + 1 < tile.sees[tile.rows - 1]; key += kBlock)',
  },
  {
    name: 'the last panel of keys is read as wide as the others',
    file: 'native/cpu/scores.h',
    find: 'rest = work.segment.length - whole;',
    replace: 'rest = kPanel;',
  },
  {
    name: 'a logit beyond the range of float32 goes unnoticed',
    file: 'native/cpu/softmax.h',
    find: '(highest * scale <= 3.402823466e38 && lowest * scale >= -3.402823466e38)',
    replace: '(lowest <= highest || true)',
  },
  {
    name: 'keys turn against the direction of the queries',
    file: 'native/cpu/scores.h',
    find: 'store(rotated + i, a * cosine - b * sine);',
    replace: 'store(rotated + i, a * cosine + b * sine);',
  },
  {
    name: 'queries are rotated by the position of the next token',
    file: 'native/cpu/attention.h',
    find: 'rotate_query(work, tile.sees[row] - 1, query);',
    replace: 'rotate_query(work, tile.sees[row] - (tile.sees[row] == work.segment.length), query);',
  },
  // ---- float32 or float64
  {
    name: 'precision: scores of any size are trusted to float32',
    file: 'native/cpu/attention.h',
    find: '<= kOrdinaryLogit * kOrdinaryLogit;',
    replace: '<= 1e9 * kOrdinaryLogit * kOrdinaryLogit;',
  },
  {
    name: 'precision: a row trusts float32 by the norms of keys that it does not see',
    file: 'native/cpu/attention.h',
    find: 'largest = largest_norm(blocks.norms, visible(row));',
    replace: 'largest = largest_norm(blocks.norms, padded(keys));',
  },
  {
    name: 'precision: only the first keys of a block are measured',
    file: 'native/cpu/attention.h',
    find: 'largest = maximum(largest, lane_numbers() + i < count ? load<float>(norms + i) : Floats{});',
    replace: 'if (i == 0) largest = lane_numbers() + i < count ? load<float>(norms + i) : Floats{};',
  },
  {
    name: 'precision: a memory of any strength is read in float32',
    file: 'native/cpu/retrieval.h',
    find: 'return weight >= 0x1p-30 && weight <= 0x1p100;',
    replace: 'return weight >= 0 && weight <= 0x1p300;',
  },
  {
    name: 'precision: features that were clamped are trusted',
    file: 'native/cpu/retrieval.h',
    find: 'smallest_of(features + row * stride, dims.head_dim) < kSmallestFeature ||',
    replace: '',
  },
  {
    name: 'precision: tiny results of a memory are trusted',
    file: 'native/cpu/retrieval.h',
    find: 'most < (packing.left ? kSmallestTiledResult : kSmallestResult)',
    replace: 'false',
  },
  {
    name: 'precision: float32 absorbs features of any size',
    file: 'native/cpu/state.h',
    find: '>= (tile ? kSmallestTiled : kSmallestFeature) &&',
    replace: '>= 0 &&',
  },
  {
    name: 'precision: float32 absorbs values of any size',
    file: 'native/cpu/state.h',
    find: 'trusted &= reduce(large, [](auto a, auto b) { return a | b; }) == 0;',
    replace: '',
  },
  {
    name: 'precision: a segment that float32 may not absorb is absorbed with what float32 prepared',
    file: 'native/cpu/attend_work.cc',
    find: 'exact_[size_t(head)] = !whole_residual(index, head, false);',
    replace: 'whole_residual(index, head, false);',
  },
  {
    name: 'precision: of several rows for float64 the last is left out',
    file: 'native/cpu/retrieval.h',
    find: 'rest.queries.end = work.queries.begin + end;',
    replace: 'rest.queries.end = work.queries.begin + end - (end - first > 1);',
  },
  // ---- the gate
  {
    name: 'the gate and its rest are exchanged',
    file: 'native/cpu/attention.h',
    find: 'local = work.gate_rest[head] / mass, gate = work.gate[head];',
    replace: 'local = work.gate[head] / mass, gate = work.gate_rest[head];',
  },
  {
    name: 'all heads of a group use the gate of the first',
    file: 'native/cpu/attention.h',
    find: 'const int head = int((work.queries.begin + row) % work.queries.group);',
    replace: 'const int head = 0;',
  },
  {
    name: "emptyRead 'local' stays in force when the memory is no longer empty",
    file: 'native/cpu/attend_work.cc',
    find: 'const bool local_only = !read && config_.empty_read == EmptyRead::Local;',
    replace: 'const bool local_only = config_.empty_read == EmptyRead::Local;',
  },
  // ---- heads
  {
    name: 'query heads are assigned to the wrong key-value head',
    file: 'native/cpu/call_work.cc',
    find: 'token * config_.query_width() + int64_t(kv_head) * config_.group() * config_.head_dim;',
    replace: 'token * config_.query_width() + int64_t(kv_head) * config_.head_dim;',
  },
  // ---- the memory
  {
    name: 'keys that pad the last panel count as keys of zeros, whose sigma is 1',
    file: 'native/cpu/state.h',
    find: 'features[i * kPanel + key] = 0;  // no key, and sigma(0) is 1',
    replace: ';',
  },
  {
    name: 'z is what the last segment added, not the sum of all',
    file: 'native/cpu/state.h',
    find: '(work.memory ? work.memory->normalizer[work.begin + row] : 0.0) +',
    replace: '',
  },
  {
    name: 'the last block of a segment is not absorbed when it is not full',
    file: 'native/cpu/state.h',
    find: 'for (int64_t first = 0; first < work.segment.length; first += kTokens) {',
    replace: 'for (int64_t first = 0; first + kTokens <= work.segment.length; first += kTokens) {',
  },
  {
    name: 'an overflow of M goes unnoticed',
    file: 'native/cpu/state.h',
    find: 'finite &= __builtin_fabsf(updated) <= 3.402823466e38f;',
    replace: '',
  },
  {
    name: 'the correction of the delta rule is rounded to bfloat16',
    file: 'native/cpu/state.h',
    find: 'store(out + j, rest);',
    replace:
      'for (int lane = 0; lane < kLanes<T>; ++lane) out[j + lane] = T(from_bfloat16(to_bfloat16(float(rest[lane]))));',
  },
  {
    name: 'the delta rule reads the memory that it is about to write',
    file: 'native/cpu/attend_work.cc',
    find: 'bool residual_block(int64_t index, int head, int64_t begin, bool exact) {\n    Memory memory;\n    const bool read = memory_before(index, head, &memory);',
    replace:
      'bool residual_block(int64_t index, int head, int64_t begin, bool exact) {\n    Memory memory = next_memory_.head(config_, head);\n    const bool read = index > 0 || absorbed_;',
  },
  {
    name: 'the linear rule subtracts what the memory holds, as the delta rule does',
    file: 'native/cpu/attend_work.cc',
    find: 'read && config_.rule == Rule::Delta ? &memory : nullptr, exact,',
    replace: 'read ? &memory : nullptr, exact,',
  },
  {
    name: 'sigma is computed as ELU + 1, which rounds small features away',
    file: 'native/cpu/vector_math.h',
    find: 'exp_double(maximum(negative, floor));',
    replace: 'exp_double(maximum(negative, floor)) - 1.0 + 1.0;',
  },
  {
    name: 'sigma is cut off at -50',
    file: 'native/cpu/vector_math.h',
    find: 'floor = broadcast(-87.0);',
    replace: 'floor = broadcast(-50.0);',
  },
  {
    name: 'an epsilon is added to the normaliser',
    file: 'native/cpu/retrieval.h',
    find: 'const T share = weight > 0 ? T(1.0 / weight) : T(0);',
    replace: 'const T share = weight > 0 ? T(1.0 / (weight + 1e-6)) : T(0);',
  },
  // ---- element types
  {
    name: 'subnormal float16 numbers are read as zero',
    file: 'native/cpu/elements.h',
    find: 'bits_as<float>(uint32_t(bits & 0x7fff) << 13) * 0x1p112f;',
    replace: 'bits_as<float>(uint32_t(bits & 0x7fff) << 13) * (bits & 0x7c00 ? 0x1p112f : 0.0f);',
  },
  {
    name: 'subnormal float16 results are written as zero',
    file: 'native/cpu/elements.h',
    find: 'return sign | uint16_t(bits_as<uint32_t>(rounded) - 0x3f000000);',
    replace: 'return uint16_t(sign + 0 * bits_as<uint32_t>(rounded));',
  },
  {
    name: 'the end of a tensor is not searched for NaN',
    file: 'native/cpu/elements.h',
    find: 'for (int64_t begin = 0; begin < count; begin += 4096) {',
    replace: 'for (int64_t begin = 0; begin + 4096 <= count; begin += 4096) {',
  },
  // ---- calls, pieces and commits
  {
    name: 'the open segment that a long call leaves behind is not kept',
    file: 'native/cpu/attend_work.cc',
    find: 'state_.cache.buffer.exchange(later_segments_.buffer);',
    replace: '',
  },
  {
    name: 'the memory is written during the call, not at its commit',
    file: 'native/cpu/attend_work.cc',
    find: 'next_memory_.matrix(config_, head), next_memory_.normalizer(config_, head)},',
    replace:
      '(read && index == 0 ? state_.memory : next_memory_).matrix(config_, head), next_memory_.normalizer(config_, head)},',
  },
  {
    name: 'a large piece is cached in parts that all begin where the first does',
    file: 'native/cpu/attend_work.cc',
    find: 'part.start += skip;',
    replace: '',
  },
  {
    name: 'a fork misses the newest keys',
    file: 'native/cpu/stream_state.cc',
    find: '(touched_ + kPanel - 1) / kPanel * kPanel',
    replace: 'touched_ / kPanel * kPanel',
  },
  // ---- models
  {
    name: 'model: rows of the embedding are taken from the next token',
    file: 'native/cpu/dense_layers.cc',
    find: 'table.row(chunk_.tokens[row])',
    replace: 'table.row((chunk_.tokens[row] + 1) % config_.vocabulary)',
  },
  {
    name: 'model: RMSNorm forgets epsilon',
    file: 'native/cpu/dense.h',
    find: '1.0 / sqrt(total / double(width) + epsilon)',
    replace: '1.0 / sqrt(total / double(width) + 0 * epsilon)',
  },
  {
    name: 'model: RMSNorm leaves out what does not fill a vector',
    file: 'native/cpu/dense.h',
    find: 'for (; i < width; ++i) total += double(x[i]) * double(x[i]);',
    replace: '',
  },
  {
    name: 'model: the MLP is not gated',
    file: 'native/cpu/dense_layers.cc',
    find: 'multiply(block.mlp_gate, normal_, mlp_, act, Into::Times);',
    replace: 'multiply(block.mlp_gate, normal_, mlp_, act, Into::Store);',
  },
  {
    name: 'model: the MLP takes the place of the residual',
    file: 'native/cpu/dense_layers.cc',
    find: 'multiply(block.mlp_down, mlp_, x_, Act::None, Into::Add);',
    replace: 'multiply(block.mlp_down, mlp_, x_, Act::None, Into::Store);',
  },
  {
    name: 'model: logits of the first row are those of the last',
    file: 'native/cpu/dense_layers.cc',
    find: 'std::memcpy(wanted_x_ + int64_t(i) * width, x_ + chunk_.wanted[i] * width,',
    replace: 'std::memcpy(wanted_x_ + int64_t(i) * width, x_ + chunk_.wanted[0] * width,',
  },
  {
    name: 'model: a chunk is committed layer by layer',
    file: 'native/core/forward.cc',
    find: 'for (Part& part : working_) attended_.push_back(std::move(part));',
    replace: 'for (Part& part : working_) { part.work->commit(); attended_.push_back(std::move(part)); }',
  },
  {
    name: 'model: logits that overflow go unnoticed',
    file: 'native/core/forward.cc',
    find: 'return std::isfinite(logit);',
    replace: 'return logit == logit;',
  },
  {
    name: 'model: NaN in the weights goes unnoticed',
    file: 'native/core/weight_file.cc',
    find: 'if (found >= 0) {',
    replace: 'if (found >= 1 << 30) {',
  },
  {
    name: 'model: a failed feed keeps what went before',
    file: 'lib/model/feed.ts',
    find: 'session.closed ? backup.close() : session.become(backup)',
    replace: 'backup.close()',
  },
  {
    name: 'model: the feed of a text loses its end',
    file: 'lib/model/input.ts',
    find: "if (rest !== '') yield",
    replace: "if (rest !== '' && !tokenizer?.cuttable) yield",
  },
  {
    name: 'model: a stop token is taken',
    file: 'lib/model/generate.ts',
    find: 'if (!this.plan.stopTokens.has(token)) return token;',
    replace: 'if (!this.plan.stopTokens.has(token) || this.tokens.length > 0) return token;',
  },
  {
    name: 'model: the tokens of a part go to the wrong session',
    file: 'native/core/forward.cc',
    find: 'std::accumulate(counts.begin(), counts.begin() + session, int64_t(0))',
    replace: 'std::accumulate(counts.begin(), counts.begin() + session / 2 * 2, int64_t(0))',
  },
];
