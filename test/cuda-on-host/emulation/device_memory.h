// Device memory: every allocation ends (but for alignment) at a guard page, begins as 0xFF and, once freed, stays
// unmapped until the address space has been gone through.
#pragma once

#include <cstddef>
#include <string>

#include "report.h"

namespace infini::emulation {

// Null when the capacity is exhausted. 16-byte aligned: less than the real one, so that an error shows sooner.
void* allocate_device(size_t bytes);
// False when it is no live allocation.
bool free_device(void* address);

size_t device_bytes();        // live
size_t device_allocations();  // live

// Whether an address lies where device memory is handed out, live or not.
bool is_device_address(const void* address);
// Whether these bytes belong to one live allocation.
bool is_device_range(const void* address, size_t bytes);
// "byte 120 of an allocation of 100 (freed)"
std::string describe_device_address(const void* address);
// Fails unless is_device_range. `what` is the access.
void check_device_range(const void* address, size_t bytes, const char* what, Site site);
// A place around an allocation that has been written since the last time, described; empty: none.
std::string find_damage();

}  // namespace infini::emulation
