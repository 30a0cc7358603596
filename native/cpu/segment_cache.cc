#include "cpu/segment_cache.h"

#include <algorithm>
#include <cstring>

namespace infini::cpu {
namespace {

template <class T>
void append_keys(T* panels, const T* keys, int64_t stride, int head_dim, int64_t length, const Piece& piece) {
  for (int64_t at = piece.start; at < piece.start + piece.count;) {
    const int64_t first = at / kPanel * kPanel;
    const int64_t width = std::min<int64_t>(kPanel, length - first);
    const int64_t end = std::min(piece.start + piece.count, first + width);
    T* panel = panels + first * head_dim;
    const T* row = keys + (piece.token + at - piece.start) * stride;
    for (int i = 0; i < head_dim; ++i) {
      for (int64_t key = at; key < end; ++key) panel[i * width + key - first] = row[(key - at) * stride + i];
    }
    at = end;
  }
}

template <class T>
void read_keys(const T* panels, T* keys, int64_t stride, int head_dim, int64_t length, int64_t begin, int64_t tokens) {
  for (int64_t key = begin; key < begin + tokens; ++key) {
    const int64_t first = key / kPanel * kPanel, width = std::min<int64_t>(kPanel, length - first);
    const T* lane = panels + first * head_dim + key - first;
    for (int i = 0; i < head_dim; ++i) keys[(key - begin) * stride + i] = lane[i * width];
  }
}

}  // namespace

SegmentCache::SegmentCache(const StreamConfig& config, Ledger& ledger, std::atomic<int64_t> Ledger::* account)
    : buffer(size_t(config.segment_length) * config.token_bytes(), ledger, account) {}

Segment SegmentCache::head(const StreamConfig& config, int kv_head) const {
  const int64_t length = config.segment_length, element = int64_t(config.element_bytes());
  char* keys = buffer.as<char>() + kv_head * length * config.head_dim * element;
  char* values = buffer.as<char>() + length * (config.key_width() + int64_t(kv_head) * config.value_dim) * element;
  return {keys, values, length};
}

void SegmentCache::append(const StreamConfig& config, int kv_head, const Tensors& tensors, const Piece& piece) {
  const Segment segment = head(config, kv_head);
  const size_t element = config.element_bytes();
  const int64_t key_at = int64_t(kv_head) * config.head_dim, value_at = int64_t(kv_head) * config.value_dim;
  if (element == 4) {
    append_keys(static_cast<uint32_t*>(const_cast<void*>(segment.keys)),
                static_cast<const uint32_t*>(tensors.key) + key_at, config.key_width(), config.head_dim,
                segment.length, piece);
  } else {
    append_keys(static_cast<uint16_t*>(const_cast<void*>(segment.keys)),
                static_cast<const uint16_t*>(tensors.key) + key_at, config.key_width(), config.head_dim,
                segment.length, piece);
  }
  const size_t row = config.value_dim * element;
  char* to = static_cast<char*>(const_cast<void*>(segment.values)) + piece.start * row;
  const char* from = static_cast<const char*>(tensors.value) + (piece.token * config.value_width() + value_at) * element;
  for (int64_t token = 0; token < piece.count; ++token) {
    std::memcpy(to + token * row, from + token * config.value_width() * element, row);
  }
}

void SegmentCache::read(const StreamConfig& config, int kv_head, int64_t begin, int64_t tokens, void* keys,
                        void* values) const {
  const Segment segment = head(config, kv_head);
  const size_t element = config.element_bytes();
  const int64_t key_at = int64_t(kv_head) * config.head_dim, value_at = int64_t(kv_head) * config.value_dim;
  if (element == 4) {
    read_keys(static_cast<const uint32_t*>(segment.keys), static_cast<uint32_t*>(keys) + key_at, config.key_width(),
              config.head_dim, segment.length, begin, tokens);
  } else {
    read_keys(static_cast<const uint16_t*>(segment.keys), static_cast<uint16_t*>(keys) + key_at, config.key_width(),
              config.head_dim, segment.length, begin, tokens);
  }
  const size_t row = config.value_dim * element;
  for (int64_t token = 0; token < tokens; ++token) {
    std::memcpy(static_cast<char*>(values) + (token * config.value_width() + value_at) * element,
                static_cast<const char*>(segment.values) + (begin + token) * row, row);
  }
}

}  // namespace infini::cpu
