// memcpy of what a call takes from JavaScript. That must happen before the call returns, and nothing else can run on the
// caller's thread meanwhile: so the crew helps with what is long.
#pragma once

#include <cstddef>

namespace infini {

void copy(void* to, const void* from, size_t bytes, int threads);

}  // namespace infini
