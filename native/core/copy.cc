#include "core/copy.h"

#include <algorithm>
#include <cstring>

#include "core/crew.h"

namespace infini {
namespace {

constexpr size_t kUnitBytes = 256 << 10;  // some 30 microseconds
constexpr size_t kWorthSharing = 2 << 20;

class CopyWork final : public Work {
 public:
  CopyWork(void* to, const void* from, size_t bytes)
      : to_(static_cast<char*>(to)), from_(static_cast<const char*>(from)), bytes_(bytes) {}

  int units() const { return int((bytes_ + kUnitBytes - 1) / kUnitBytes); }
  int next_stage() override { return 0; }
  void run(int unit) override {
    const size_t at = size_t(unit) * kUnitBytes;
    std::memcpy(to_ + at, from_ + at, std::min(kUnitBytes, bytes_ - at));
  }
  void commit() override {}

 private:
  char* const to_;
  const char* const from_;
  const size_t bytes_;
};

}  // namespace

void copy(void* to, const void* from, size_t bytes, int threads) {
  if (bytes < kWorthSharing) {
    std::memcpy(to, from, bytes);
    return;
  }
  CopyWork work(to, from, bytes);
  Crew::run(work, work.units(), threads);
}

}  // namespace infini
