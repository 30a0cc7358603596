// Whether this process may take so much more memory: asked before a page is touched, because Linux says yes to
// every allocation and kills the process later.
#pragma once

#include <cstdint>
#include <string>

#include "core/ledger.h"

namespace infini {

// Bytes the process can still use: the smallest of what the machine, every enclosing control group and the
// address-space limit leave.
uint64_t available_memory();

// Less what streams were promised and have not written yet.
uint64_t unspoken_memory(const Ledger& ledger);

// Throws Error(OutOfMemory) when `bytes` for `what` exceed what is available and not yet spoken for.
void require_memory(uint64_t bytes, const std::string& what, const Ledger& ledger);

}  // namespace infini
