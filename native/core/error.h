// The one error type of the engine and the table of its codes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace infini {

// X(name, code seen by JavaScript, JavaScript class). lib/errors.ts holds the same table; a test compares them.
#define INFINI_ERROR_CODES(X)                              \
  X(InvalidArgType, "ERR_INVALID_ARG_TYPE", "TypeError")   \
  X(Dtype, "ERR_DTYPE", "TypeError")                       \
  X(OutOfRange, "ERR_OUT_OF_RANGE", "RangeError")          \
  X(Shape, "ERR_SHAPE", "RangeError")                      \
  X(NonFinite, "ERR_NON_FINITE", "RangeError")             \
  X(OutOfMemory, "ERR_OUT_OF_MEMORY", "Error")             \
  X(Closed, "ERR_CLOSED", "Error")                         \
  X(Busy, "ERR_BUSY", "Error")                             \
  X(Abort, "ABORT_ERR", "Error")                           \
  X(NoDevice, "ERR_NO_DEVICE", "Error")                    \
  X(Model, "ERR_MODEL", "Error")                           \
  X(Snapshot, "ERR_SNAPSHOT", "Error")                     \
  X(Device, "ERR_DEVICE", "Error")

enum class ErrorCode {
#define X(name, code, type) name,
  INFINI_ERROR_CODES(X)
#undef X
};

// Where a non-finite value was met. The order is the order in which equals are reported.
enum class Site : uint8_t { Query, Key, Value, Output, Memory };
const char* site_name(Site site);

// Text from outside for a message: short, and free of control characters.
std::string quoted(const std::string& text);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code(code) {}

  static Error non_finite(Site site, int64_t token);
  static Error of_stream(Error error, int64_t stream);
  static Error out_of_memory(const std::string& what, uint64_t bytes, uint64_t available);

  ErrorCode code;
  Site site = Site::Query;  // with NonFinite only
  int64_t token = -1;       // with NonFinite only: token of the call
  int64_t stream = -1;      // in a batch: whose fault it is
};

}  // namespace infini
