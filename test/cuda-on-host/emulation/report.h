// Errors: where in the source they are, who made them, and how they leave the kernel.
#pragma once

#include <cstdint>
#include <string>

#include "emulation/location.h"

namespace infini::emulation {

struct Thread;

// A place in the source in 32 bits: a location's number, or the address of an instruction. 0: none.
using Site = uint32_t;
Site site_of(const Location& where);
Site site_of(const void* return_address);

std::string name(const Location& where);
std::string name(Site site);  // runs addr2line
std::string name(const Thread& thread);
std::string function_name(const void* address);

// Ends the kernel. Never by an exception, which must not pass through a kernel's frames: the fibers are abandoned and
// the launch goes on as failed. Outside a kernel it throws EmulationError.
[[noreturn]] void fail(const std::string& what);
[[noreturn]] void fail(const std::string& what, Site site);

}  // namespace infini::emulation
