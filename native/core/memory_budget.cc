#include "core/memory_budget.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <mutex>
#include <optional>
#include <sstream>

#include "core/error.h"

namespace infini {
namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value;
  if (file >> value) return value;
  return std::nullopt;  // absent, or "max"
}

// "name value" or "name: value kB" lines.
std::optional<uint64_t> read_field(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string word, unit;
    uint64_t value;
    if (words >> word >> value && word == name) return words >> unit && unit == "kB" ? value * 1024 : value;
  }
  return std::nullopt;
}

// What a control group leaves: its limit less its use; page cache that can be dropped is not use.
uint64_t left_in_group(const std::string& folder, const char* limit_file, const char* use_file, const char* cache) {
  const auto limit = read_number(folder + limit_file);
  if (!limit) return kUnlimited;
  const uint64_t use = read_number(folder + use_file).value_or(0);
  const uint64_t droppable = std::min(use, read_field(folder + "/memory.stat", cache).value_or(0));
  return *limit > use - droppable ? *limit - (use - droppable) : 0;
}

uint64_t left_in_groups() {
  uint64_t left = kUnlimited;
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool unified = controllers == ",,";
    if (!unified && controllers.find(",memory,") == std::string::npos) continue;
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    // Every ancestor's limit holds too. Inside a container the path may not be mounted: then only the root is.
    for (std::string path = line.substr(second + 1);; path = path.substr(0, path.rfind('/'))) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      left = std::min(left, unified ? left_in_group(root + path, "/memory.max", "/memory.current", "inactive_file")
                                    : left_in_group(root + path, "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                                    "total_inactive_file"));
      if (path.empty()) break;
    }
  }
  return left;
}

uint64_t left_in_address_space() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  const uint64_t pages = read_number("/proc/self/statm").value_or(0);
  const uint64_t used = pages * uint64_t(sysconf(_SC_PAGESIZE));
  return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

// What the machine and the groups leave. Pages that were never written count as free there.
uint64_t left_in_memory() {
  const auto machine = read_field("/proc/meminfo", "MemAvailable:");
#if defined(_SC_PHYS_PAGES)
  const uint64_t fallback = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
#else
  const uint64_t fallback = kUnlimited;
#endif
  return std::min(machine.value_or(fallback), left_in_groups());
}

}  // namespace

uint64_t available_memory() { return std::min(left_in_memory(), left_in_address_space()); }

uint64_t unspoken_memory(const Ledger& ledger) {
  const uint64_t spoken_for = uint64_t(std::max<int64_t>(0, ledger.untouched_bytes));
  const uint64_t memory = left_in_memory();
  return std::min(memory > spoken_for ? memory - spoken_for : 0, left_in_address_space());  // which has them in already
}

void require_memory(uint64_t bytes, const std::string& what, const Ledger& ledger) {
  // Reading /proc takes longer than creating a small stream, so each reading grants a small allowance.
  static std::mutex mutex;
  static uint64_t allowance = 0;
  std::lock_guard lock(mutex);
  if (bytes <= allowance) {
    allowance -= bytes;
    return;
  }
  const uint64_t free = unspoken_memory(ledger);
  if (bytes > free) throw Error::out_of_memory(what, bytes, free);
  allowance = std::min<uint64_t>((free - bytes) / 16, 16 << 20);
}

}  // namespace infini
