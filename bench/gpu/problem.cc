#include "problem.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "check.h"

namespace infini::cuda::bench {
namespace {

constexpr double kOutputLimit = 5e-3, kMatrixLimit = 1e-4, kNormalizerLimit = 1e-6;
constexpr int kDecoded = 1;  // tokens of a decode step: the kernel is launched as a prepared batch launches it

// A device array filled over and over from a block of values, from another place in it for each array.
template <class T, class Draw> DeviceArray<T> noise(size_t size, std::mt19937_64& random, Draw draw) {
  DeviceArray<T> array(size);
  std::vector<T> block(std::min(size, size_t(1) << 20));
  for (T& x : block) x = draw();
  const DeviceArray<T> source(block);
  for (size_t filled = 0; filled < size;) {
    const size_t begin = random() % block.size();
    const size_t count = std::min(block.size() - begin, size - filled);
    expect_success(
        cudaMemcpyAsync(array.get() + filled, source.get() + begin, count * sizeof(T), cudaMemcpyDeviceToDevice, nullptr));
    filled += count;
  }
  expect_success(cudaDeviceSynchronize());
  return array;
}

template <class T> std::vector<T> download(const T* from, size_t count) {
  std::vector<T> values(count);
  expect_success(cudaMemcpy(values.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

reference::Matrix to_doubles(const std::vector<uint16_t>& elements) {
  reference::Matrix values(elements.size());
  for (size_t i = 0; i < elements.size(); ++i) values[i] = decode(Element::BFloat16, elements[i]);
  return values;
}

std::string judge(const char* what, int stream, int head, double error, double limit) {
  if (error <= limit) return {};  // false for NaN
  char text[160];
  std::snprintf(text, sizeof text, "%s of head %d of stream %d is off by %.3g of its norm, %.3g is allowed", what, head,
                stream, error, limit);
  return text;
}

}  // namespace

Problem::Problem(const Case& which, uint64_t seed)
    : case_(which), tokens_(which.kind == Kind::Decode ? kDecoded : which.segment) {
  const int dim = which.dim, heads = which.heads, streams = which.streams;
  const size_t width = size_t(heads) * dim;
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const auto element = [&] { return uint16_t(encode(Element::BFloat16, normal(random))); };

  gate_ = DeviceArray<float2>(std::vector<float2>(size_t(heads), float2{0.5f, 0.5f}));
  shape_ = {Element::BFloat16, true, false, heads, heads, dim, dim, which.segment, 1 / std::sqrt(float(dim)), gate_.get(), nullptr};

  const size_t elements = size_t(streams) * tokens_ * width;
  query_ = noise<uint16_t>(elements, random, element);
  key_ = noise<uint16_t>(elements, random, element);
  value_ = noise<uint16_t>(elements, random, element);
  output_ = DeviceArray<uint16_t>(elements);
  const size_t cached = size_t(streams) * which.segment * width;
  if (which.kind == Kind::Decode) {
    cached_keys_ = noise<uint16_t>(cached, random, element);
    cached_values_ = noise<uint16_t>(cached, random, element);
  }

  // As after four segments.
  const double history = 4.0 * which.segment;
  const size_t cells = size_t(streams) * width * dim;
  matrix_ = noise<float>(cells, random, [&] { return float(history) * normal(random); });
  normalizer_ = noise<double>(size_t(streams) * width, random, [&] { return history * (1 + 0.2 * std::tanh(normal(random))); });
  next_matrix_ = DeviceArray<float>(cells);
  next_normalizer_ = DeviceArray<double>(size_t(streams) * width);
  failures_ = DeviceArray<Failure>(std::vector<Failure>(size_t(streams), kNoFailure));

  const bool fills = which.kind != Kind::Decode;
  std::vector<Job> jobs;
  std::vector<Place> borders;
  std::vector<QueryTile> tiles;
  const int rows = fills ? forward_tile_rows(shape_) : 1;
  for (int i = 0; i < streams; ++i) {
    const size_t tensor = size_t(i) * tokens_ * width, cache = size_t(i) * which.segment * width;
    jobs.push_back({query_.get() + tensor, key_.get() + tensor, value_.get() + tensor, output_.get() + tensor,
                    cached_keys_.get() + (fills ? 0 : cache), cached_values_.get() + (fills ? 0 : cache),
                    matrix_.get() + i * width * dim, normalizer_.get() + i * width, next_matrix_.get() + i * width * dim,
                    next_normalizer_.get() + i * width, failures_.get() + i, 0, tokens_, which.open(), 1, fills ? 1 : 0, 1, i, i});
    if (fills) borders.push_back({i, 0});
  }
  for (int tile = (tokens_ + rows - 1) / rows - 1; tile >= 0; --tile) {  // later tiles see more keys
    for (int i = 0; i < streams; ++i) tiles.push_back({i, 0, tile});
  }
  jobs_ = DeviceArray<Job>(jobs);
  if (!fills) {
    const size_t bytes = size_t(decode_scratch_bytes(shape_, streams, kDecoded));
    decode_scratch_ = DeviceArray<unsigned char>(std::vector<unsigned char>(bytes));
    return;
  }
  borders_ = DeviceArray<Place>(borders);
  tiles_ = DeviceArray<QueryTile>(tiles);
  const size_t dims = size_t(padded(dim)), per_head = size_t(streams) * heads;
  key_sums_ = DeviceArray<double>(per_head * dim);
  normalizers_ = DeviceArray<float>(per_head * dims);
  sums_ = DeviceArray<float>(per_head * chunks(which.segment) * dims * 2 * dims);
  snapshots_ = DeviceArray<uint16_t>(per_head * dims * dims);
  workspace_ = {key_sums_.get(), normalizers_.get(), sums_.get(), snapshots_.get()};
  if (which.kind == Kind::Forward) enqueue_state(nullptr); // publishes M and z for the retrieval
}

void Problem::enqueue_state(cudaStream_t stream) {
  const int streams = case_.streams;
  expect_success(launch_key_sums(shape_, jobs_.get(), borders_.get(), streams, workspace_, stream));
  expect_success(launch_normalizers(shape_, jobs_.get(), streams, workspace_, stream));
  expect_success(launch_sums(shape_, jobs_.get(), borders_.get(), streams, workspace_, stream));
  expect_success(launch_chain(shape_, jobs_.get(), streams, workspace_, stream));
}

void Problem::enqueue(cudaStream_t stream) {
  if (case_.kind == Kind::Decode) {
    expect_success(launch_decode(shape_, jobs_.get(), case_.streams, decode_scratch_.get(), stream, kDecoded));
    return;
  }
  if (case_.kind != Kind::Forward) enqueue_state(stream);
  if (case_.kind != Kind::State) {
    expect_success(launch_forward(shape_, jobs_.get(), tiles_.get(), int(tiles_.size()), workspace_, stream));
  }
}

std::string Problem::wrong() const {
  expect_success(cudaDeviceSynchronize());
  const std::vector<Failure> failures = failures_.download();
  for (int i = 0; i < case_.streams; ++i) {
    if (failures[size_t(i)] != kNoFailure) return "a kernel notes a failure of stream " + std::to_string(i);
  }
  for (int stream : {0, case_.streams - 1}) {
    for (int head : {0, case_.heads - 1}) {
      std::string found;
      if (case_.kind != Kind::State) found = wrong_output(stream, head);
      if (found.empty() && (case_.kind == Kind::State || case_.kind == Kind::Step)) found = wrong_state(stream, head);
      if (!found.empty()) return found;
    }
  }
  return {};
}

// The rows of one head of [streams][count][heads][dim].
reference::Matrix Problem::rows_of(const DeviceArray<uint16_t>& tensor, int64_t stream, int head, int count) const {
  const size_t size = size_t(count) * case_.heads * case_.dim;
  return reference::head_of(to_doubles(download(tensor.get() + size_t(stream) * size, size)), case_.heads, case_.dim, head, 0, count);
}

reference::Memory Problem::memory_of(const DeviceArray<float>& matrix, const DeviceArray<double>& normalizer, int64_t stream,
                                     int head) const {
  const int dim = case_.dim;
  const size_t row = (size_t(stream) * case_.heads + head) * dim;
  reference::Memory memory(dim, dim);
  const std::vector<float> cells = download(matrix.get() + row * dim, size_t(dim) * dim);
  memory.matrix.assign(cells.begin(), cells.end());
  memory.normalizer = download(normalizer.get() + row, size_t(dim));
  memory.absorbed = true;
  return memory;
}

std::string Problem::wrong_output(int stream, int head) const {
  const int dim = case_.dim, open = case_.open();
  reference::Matrix key = rows_of(key_, stream, head, tokens_), value = rows_of(value_, stream, head, tokens_);
  const reference::Matrix query = rows_of(query_, stream, head, tokens_), output = rows_of(output_, stream, head, tokens_);
  if (open > 0) {  // [streams][heads][segment][dim]
    const size_t from = (size_t(stream) * case_.heads + head) * case_.segment * dim, size = size_t(open) * dim;
    const reference::Matrix keys = to_doubles(download(cached_keys_.get() + from, size));
    const reference::Matrix values = to_doubles(download(cached_values_.get() + from, size));
    key.insert(key.begin(), keys.begin(), keys.end());
    value.insert(value.begin(), values.begin(), values.end());
  }
  const reference::Memory memory = memory_of(matrix_, normalizer_, stream, head);
  reference::Matrix computed, expected;
  for (int sample = 0; sample < 8; ++sample) {
    const int token = int(int64_t(tokens_ - 1) * sample / 7);
    const auto row = query.begin() + int64_t(token) * dim;
    const reference::Matrix one(row, row + dim);
    const int64_t visible = int64_t(open + token + 1) * dim;
    const reference::Matrix local = reference::attend(one, {key.begin(), key.begin() + visible},
                                                      {value.begin(), value.begin() + visible}, dim, dim, shape_.scale).output;
    const reference::Matrix read = reference::retrieve(memory, one);
    for (int j = 0; j < dim; ++j) {
      expected.push_back(0.5 * local[size_t(j)] + 0.5 * read[size_t(j)]);
      computed.push_back(output[size_t(token) * dim + j]);
    }
  }
  return judge("the output", stream, head, check::relative_error(computed, expected), kOutputLimit);
}

std::string Problem::wrong_state(int stream, int head) const {
  reference::Memory expected = memory_of(matrix_, normalizer_, stream, head);
  reference::absorb(expected, rows_of(key_, stream, head, tokens_), rows_of(value_, stream, head, tokens_), shape_.delta);
  const reference::Memory computed = memory_of(next_matrix_, next_normalizer_, stream, head);
  const std::string found =
      judge("M", stream, head, check::relative_error(computed.matrix, expected.matrix), kMatrixLimit);
  if (!found.empty()) return found;
  return judge("z", stream, head, check::relative_error(computed.normalizer, expected.normalizer), kNormalizerLimit);
}

void Problem::spoil() {
  expect_success(cudaDeviceSynchronize());
  if (case_.kind == Kind::State) {
    expect_success(cudaMemset(next_matrix_.get(), 0, sizeof(float) * size_t(case_.dim)));
  } else {
    expect_success(cudaMemset(output_.get(), 0, sizeof(uint16_t) * size_t(case_.dim)));
  }
}

}  // namespace infini::cuda::bench
