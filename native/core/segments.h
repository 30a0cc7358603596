// Segment bookkeeping: how the tokens of one call fall into segments.
#pragma once

#include <algorithm>
#include <cstdint>

namespace infini {

// Consecutive tokens of one call that lie in one segment.
struct Piece {
  int64_t token;   // its first token, counted within the call
  int64_t start;   // position of that token within its segment
  int64_t count;   // tokens in the piece
  bool completes;  // its last token is the segment's last: the segment is absorbed
};

// Computed, not stored: a call may hold a million one-token segments.
class Pieces {
 public:
  Pieces(int64_t open, int64_t tokens, int64_t segment_length)
      : open_(open), tokens_(tokens), length_(segment_length) {}

  // Tokens 0..end of the call's first segment were there before (open_), so piece i ends at (i + 1) N - open.
  int64_t size() const { return (open_ + tokens_ + length_ - 1) / length_; }

  Piece operator[](int64_t index) const {
    const int64_t begin = std::max<int64_t>(0, index * length_ - open_);
    const int64_t end = std::min(tokens_, (index + 1) * length_ - open_);
    return {begin, index == 0 ? open_ : 0, end - begin, (index + 1) * length_ - open_ <= tokens_};
  }

  int64_t completed() const { return (open_ + tokens_) / length_; }

 private:
  int64_t open_, tokens_, length_;
};

}  // namespace infini
