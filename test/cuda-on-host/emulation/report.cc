#include "report.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "machine.h"

namespace infini::emulation {

namespace {

// A site with this bit is the number of a location, one without is an address counted from kCode below this function.
constexpr Site kIsLocation = Site(1) << 31;
constexpr uintptr_t kCode = uintptr_t(1) << 30;

struct Locations {
  std::vector<Location> all;
  std::map<std::tuple<const char*, unsigned, unsigned>, Site> numbers;
};
Locations& locations = *new Locations;

uintptr_t anchor() { return reinterpret_cast<uintptr_t>(&anchor) - kCode; }

std::string without_folders(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// file:line of the innermost inlined function that is the project's own: not a stand-in's, not the library's.
std::string resolve(const void* address) {
  Dl_info module{};
  if (!dladdr(address, &module) || !module.dli_fname) return "?";
  const size_t offset = size_t(static_cast<const char*>(address) - static_cast<const char*>(module.dli_fbase));
  char command[1024];
  std::snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%zx 2>/dev/null", module.dli_fname, offset);
  std::string found = without_folders(module.dli_fname) + "+" + std::to_string(offset);
  if (FILE* lines = popen(command, "r")) {
    char line[1024];
    while (std::fgets(line, sizeof line, lines)) {
      if (line[0] == '?' || std::strstr(line, "/emulation/include/") || std::strstr(line, "/c++/")) continue;
      found = without_folders(line);
      found.resize(std::strcspn(found.c_str(), " \n"));
      break;
    }
    pclose(lines);
  }
  return found;
}

[[noreturn]] void leave(const std::string& what) {
  Thread* self = current_thread;
  if (!self) throw EmulationError(what);
  machine.failed = true;
  machine.observing = false;
  machine.failure = what + ", in " + name(*self);
  current_thread = nullptr;
  switch_context(self->context, machine.host, true);
  std::abort();
}

}  // namespace

Site site_of(const Location& where) {
  auto [found, added] = locations.numbers.try_emplace({where.file_name(), where.line(), where.column()}, 0);
  if (added) {
    found->second = kIsLocation | Site(locations.all.size());
    locations.all.push_back(where);
  }
  return found->second;
}

Site site_of(const void* return_address) {
  return Site(reinterpret_cast<uintptr_t>(return_address) - anchor()) & ~kIsLocation;
}

std::string name(const Location& where) {
  return without_folders(where.file_name()) + ":" + std::to_string(where.line());
}

std::string name(Site site) {
  if (!site) return "?";
  if (site & kIsLocation) return name(locations.all[site & ~kIsLocation]);
  return resolve(reinterpret_cast<const void*>(anchor() + site - 1));
}

std::string name(const Thread& thread) {
  const uint3& index = thread.block->index;
  return "block (" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) +
         ") thread " + std::to_string(thread.number) + " (warp " + std::to_string(thread.number / 32) + " lane " +
         std::to_string(thread.lane) + ")";
}

std::string function_name(const void* address) {
  Dl_info module{};
  std::string found = "?";
  if (!dladdr(address, &module) || !module.dli_fname) return found;
  if (module.dli_sname) {
    int status = 0;
    char* readable = abi::__cxa_demangle(module.dli_sname, nullptr, nullptr, &status);
    found = readable ? readable : module.dli_sname;
    std::free(readable);
    return found;
  }
  const size_t offset = size_t(static_cast<const char*>(address) - static_cast<const char*>(module.dli_fbase));
  char command[1024], line[1024];
  std::snprintf(command, sizeof command, "addr2line -f -C -e '%s' 0x%zx 2>/dev/null", module.dli_fname, offset);
  if (FILE* lines = popen(command, "r")) {
    if (std::fgets(line, sizeof line, lines)) found.assign(line, std::strcspn(line, "\n"));
    pclose(lines);
  }
  return found;
}

void fail(const std::string& what) { leave(what); }
void fail(const std::string& what, const Location& where) { leave(what + ", at " + name(where)); }
void fail(const std::string& what, Site site) { leave(what + ", at " + name(site)); }

}  // namespace infini::emulation
