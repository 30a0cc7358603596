// For test programs: a SIGSEGV in a kernel becomes a report, and so does a kernel that spins.
#pragma once

namespace infini::emulation {

void watch_kernel();  // until
void unwatch_kernel();

}  // namespace infini::emulation
