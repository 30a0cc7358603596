// AddressSanitizer's interface, or nothing.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define INFINI_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define INFINI_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef INFINI_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace infini::emulation {

#ifdef INFINI_ADDRESS_SANITIZER
constexpr bool kAddressSanitizer = true;
inline void forbid(const void* address, size_t bytes) { __asan_poison_memory_region(address, bytes); }
inline void allow(const void* address, size_t bytes) { __asan_unpoison_memory_region(address, bytes); }
#else
constexpr bool kAddressSanitizer = false;
inline void forbid(const void*, size_t) {}
inline void allow(const void*, size_t) {}
#endif

}  // namespace infini::emulation
