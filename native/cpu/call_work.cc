#include "cpu/call_work.h"

#include <algorithm>
#include <cstring>

#include "core/memory_budget.h"

namespace infini::cpu {
namespace {

constexpr int64_t kCheckElements = 1 << 20;  // per unit: a fraction of a millisecond

}  // namespace

CallWork::CallWork(CpuStreamState& state, const Tensors& tensors)
    : state_(state), config_(state.config), tensors_(tensors), kernels_(select_kernels()) {
  if (!tensors.output_visible) return;
  require_memory(output_bytes(), "the output of one call", state.ledger);
  aside_ = Buffer(output_bytes(), state.ledger, &Ledger::staging_bytes);
  visible_output_ = tensors_.output;
  tensors_.output = aside_.as<void>();
  tensors_.output_visible = false;
}

void CallWork::publish() noexcept {
  if (visible_output_) std::memcpy(visible_output_, tensors_.output, output_bytes());
}

int64_t CallWork::check_tokens() const {
  const int64_t width = config_.query_width() + (tensors_.key ? config_.key_width() + config_.value_width() : 0);
  return std::max<int64_t>(1, kCheckElements / width);
}

int CallWork::check_units() const { return int((tensors_.tokens + check_tokens() - 1) / check_tokens()); }

void CallWork::check(int unit) {
  const int64_t begin = unit * check_tokens(), end = std::min(tensors_.tokens, begin + check_tokens());
  auto check_tensor = [&](const void* data, int64_t width, Site site) {
    if (!data) return;
    const char* from = static_cast<const char*>(data) + begin * width * int64_t(config_.element_bytes());
    const int64_t found = kernels_.find_non_finite(state_.dims().element, from, (end - begin) * width);
    if (found >= 0) failure_.note(begin + found / width, site);
  };
  check_tensor(tensors_.query, config_.query_width(), Site::Query);
  check_tensor(tensors_.key, config_.key_width(), Site::Key);
  check_tensor(tensors_.value, config_.value_width(), Site::Value);
}

Rows CallWork::query_rows(int kv_head, int64_t token, int64_t begin, int64_t end) const {
  const int64_t element = int64_t(config_.element_bytes());
  const int64_t at = token * config_.query_width() + int64_t(kv_head) * config_.group() * config_.head_dim;
  return {static_cast<const char*>(tensors_.query) + at * element, config_.query_width(), config_.group(), begin, end};
}

void* CallWork::output_rows(int kv_head, int64_t token) const {
  const int64_t element = int64_t(config_.element_bytes());
  const int64_t at = token * config_.output_width() + int64_t(kv_head) * config_.group() * config_.value_dim;
  return static_cast<char*>(tensors_.output) + at * element;
}

}  // namespace infini::cpu
