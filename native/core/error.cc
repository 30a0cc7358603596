#include "core/error.h"

namespace infini {

const char* site_name(Site site) {
  switch (site) {
    case Site::Query: return "q";
    case Site::Key: return "k";
    case Site::Value: return "v";
    case Site::Output: return "output";
    case Site::Memory: return "memory";
  }
  return "";
}

std::string quoted(const std::string& text) {
  std::string shown = text.substr(0, 64);
  while (shown.size() < text.size() && !shown.empty() && (text[shown.size()] & 0xc0) == 0x80) shown.pop_back();
  for (char& character : shown) {
    if (static_cast<unsigned char>(character) < 0x20) character = '?';
  }
  return "'" + shown + "'";
}

Error Error::non_finite(Site site, int64_t token) {
  const std::string at = " at token " + std::to_string(token) + " of the call";
  std::string message;
  if (site == Site::Memory) {
    message = "Expected the memory to stay finite but absorbing the segment that ends" + at + " overflowed it";
  } else if (site == Site::Output) {
    message = "Expected a finite output but a logit or the output overflowed" + at;
  } else {
    message = std::string("Expected finite numbers for \"") + site_name(site) + "\" but received NaN or Infinity" + at;
  }
  Error error(ErrorCode::NonFinite, message);
  error.site = site;
  error.token = token;
  return error;
}

// The error of one stream's call, told to the whole batch.
Error Error::of_stream(Error error, int64_t stream) {
  Error told(error.code, "Stream " + std::to_string(stream) + " of the batch: " + error.what());
  told.site = error.site;
  told.token = error.token;
  told.stream = stream;
  return told;
}

Error Error::out_of_memory(const std::string& what, uint64_t bytes, uint64_t available) {
  return Error(ErrorCode::OutOfMemory, "Expected room for " + what + " of " + std::to_string(bytes) +
                                           " bytes but only " + std::to_string(available) +
                                           " bytes of memory are available");
}

}  // namespace infini
