#include "cpu/rotary.h"

#include <map>
#include <mutex>
#include <tuple>

#include "core/memory_budget.h"
#include "core/rotary.h"

namespace infini::cpu {
namespace {

int64_t panel_entries(int head_dim, int64_t positions) {
  return (positions + kPanel - 1) / kPanel * kPanel * (head_dim / 2);
}

}  // namespace

RotaryTable::RotaryTable(double theta, int head_dim, int64_t positions, Ledger& ledger)
    : entries_(panel_entries(head_dim, positions)),
      table_((require_memory(uint64_t(entries_) * 2 * sizeof(double), "a rotary table", ledger),
              size_t(entries_) * 2 * sizeof(double)),
             ledger, &Ledger::table_bytes) {
  double* cosines = table_.as<double>();
  double* sines = cosines + entries_;
  const int half = head_dim / 2;
  // Whole panels: kernels read the lanes that no position has, too.
  for_each_turn(theta, head_dim, entries_ / half, [&](int64_t position, int i, double cosine, double sine) {
    const int64_t at = position / kPanel * kPanel * half + int64_t(i) * kPanel + position % kPanel;
    cosines[at] = cosine;
    sines[at] = sine;
  });
}

std::shared_ptr<const RotaryTable> shared_rotary_table(double theta, int head_dim, int64_t positions, Ledger& ledger) {
  static std::mutex& mutex = *new std::mutex;
  static auto& tables = *new std::map<std::tuple<double, int, int64_t>, std::weak_ptr<const RotaryTable>>;
  std::lock_guard lock(mutex);
  for (auto entry = tables.begin(); entry != tables.end();) {
    entry = entry->second.expired() ? tables.erase(entry) : std::next(entry);
  }
  auto& slot = tables[{theta, head_dim, positions}];
  auto table = slot.lock();
  if (!table) slot = table = std::make_shared<const RotaryTable>(theta, head_dim, positions, ledger);
  return table;
}

}  // namespace infini::cpu
