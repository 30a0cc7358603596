#include "backend/batch_state.h"

#include <cstring>
#include <optional>

#include "backend/call_work.h"
#include "core/error.h"

namespace infini::cuda {
namespace {

size_t bytes_of(const Configuration& configuration, int64_t tokens, int64_t width) {
  return size_t(tokens * width) * configuration.config.element_bytes();
}

class StepWork final : public CudaWork {
 public:
  StepWork(CudaBatchState& batch, const Tensors& packed, const std::vector<Position>& positions)
      : batch_(batch), configuration_(*batch.configuration), packed_(packed), positions_(positions) {
    for (size_t i = 0; i < positions.size(); ++i) {
      if (positions[i].open + 1 < configuration_.config.segment_length) continue;
      full_.push_back(i);
      memories_.push_back(batch.streams[i]->new_memory(&Ledger::scratch_bytes));
    }
    absorptions_.resize(full_.size());
  }
  ~StepWork() override { land(); }

  int next_stage() override {
    batch_.device.require_working();
    if (failure_ != kNoFailure) {
      if (!check_) check_.emplace(configuration_, packed_);
      request_ = Request();
      request_.configuration = &configuration_;
      check_->plan(request_);
      return 1;
    }
    if (layout_) return 0;
    if (!full_.empty()) {
      const Device::Scope scope(batch_.device);
      std::lock_guard lock(batch_.device.queue);
      batch_.device.reserve_workspace(configuration_.workspace_bytes(1, 1));
    }
    return 1;
  }

  void launch(std::vector<Request*>& requests) override {
    if (check_) {
      if (check_->needs_device()) requests.push_back(&request_);
      return;
    }
    layout_ = &batch_.layout(packed_);
    write_jobs();
    batch_.launch(*layout_);
    under_way_ = true;
    for (size_t i = 0; i < full_.size(); ++i) {
      absorptions_[i] = absorption(full_[i], memories_[i]);
      requests.push_back(&absorptions_[i]);
    }
  }

  void run(int) override {
    const Device::Scope scope(batch_.device);
    if (check_) {
      const Failure found = check_->run(request_);
      if (found != kNoFailure) throw failure_of(int64_t(found / 8), infini::Site(found % 8));
      if (check_->done()) throw failure_of(failed_stream_, infini::Site(failure_ % 8));
      return;
    }
    batch_.device.wait(batch_.stepped);
    under_way_ = false;
    const Failure* failures = batch_.mail.host<Failure>(layout_->failures);
    for (size_t i = 0; i < positions_.size(); ++i) note(i, failures[i]);
    for (size_t i = 0; i < full_.size(); ++i) {
      const auto round = std::move(absorptions_[i].round);
      round->wait();
      note(full_[i], round->failure(absorptions_[i].place));
    }
  }

  void commit() override {
    const size_t bytes = bytes_of(configuration_, packed_.tokens, configuration_.config.output_width());
    if (packed_.output_place == infini::Place::Host) {
      std::memcpy(packed_.output, batch_.mail.host<char>(layout_->output), bytes);
    } else if (packed_.output_visible) {  // else the kernel has written it
      const Device::Scope scope(batch_.device);
      batch_.device.copy(packed_.output, batch_.mail.device<char>(layout_->output), bytes);
    }
    for (size_t i = 0; i < full_.size(); ++i) batch_.streams[full_[i]]->memory.exchange(memories_[i]);
  }

 private:
  static Error failure_of(int64_t stream, infini::Site site) {
    return Error::of_stream(Error::non_finite(site, 0), stream);
  }

  // The first stream's failure counts, as if one had stepped after the other.
  void note(size_t stream, Failure failure) {
    if (failure == kNoFailure || (failure_ != kNoFailure && int64_t(stream) > failed_stream_)) return;
    failure_ = int64_t(stream) == failed_stream_ ? std::min(failure_, failure) : failure;
    failed_stream_ = int64_t(stream);
  }

  // Where a tensor is on the device; what is on the host is copied into the mail.
  const char* bring(int which, const void* data, infini::Place place, size_t bytes) {
    if (place == infini::Place::Device) return static_cast<const char*>(data);
    std::memcpy(batch_.mail.host<char>(layout_->inputs[which]), data, bytes);
    return batch_.mail.device<char>(layout_->inputs[which]);
  }

  void write_jobs() {
    const StreamConfig& config = configuration_.config;
    const int64_t count = packed_.tokens;
    const size_t query_row = bytes_of(configuration_, 1, config.query_width());
    const size_t key_row = bytes_of(configuration_, 1, config.key_width());
    const size_t value_row = bytes_of(configuration_, 1, config.value_width());
    const size_t output_row = bytes_of(configuration_, 1, config.output_width());
    const char* query = bring(0, packed_.query, packed_.query_place, count * query_row);
    const char* key = bring(1, packed_.key, packed_.key_place, count * key_row);
    const char* value = bring(2, packed_.value, packed_.value_place, count * value_row);
    const bool in_place = packed_.output_place == infini::Place::Device && !packed_.output_visible;
    char* output = in_place ? static_cast<char*>(packed_.output) : batch_.mail.device<char>(layout_->output);
    Job* jobs = batch_.mail.host<Job>(layout_->jobs);
    for (int64_t i = 0; i < count; ++i) {
      const CudaStreamState& stream = *batch_.streams[i];
      Job job{};
      job.query = query + i * query_row;
      job.key = key + i * key_row;
      job.value = value + i * value_row;
      job.output = output + i * output_row;
      job.cached_keys = configuration_.keys(stream.cache);
      job.cached_values = configuration_.values(stream.cache);
      job.matrix = configuration_.matrix(stream.memory);
      job.normalizer = configuration_.normalizer(stream.memory);
      job.failure = batch_.mail.device<Failure>(layout_->failures) + i;
      job.tokens = job.pieces = 1;
      job.open = int(positions_[i].open);
      job.absorbed = positions_[i].absorbed;
      jobs[i] = job;
      batch_.mail.host<Failure>(layout_->failures)[i] = kNoFailure;
    }
  }

  Request absorption(size_t stream, const Block& memory) const {
    Request request;
    request.kind = Request::Kind::Absorb;
    request.configuration = &configuration_;
    request.job = batch_.mail.host<Job>(layout_->jobs)[stream];
    request.job.borders = 1;
    request.job.next_matrix = configuration_.matrix(memory);
    request.job.next_normalizer = configuration_.normalizer(memory);
    return request;
  }

  void land() noexcept {
    const Device::Scope scope(batch_.device);
    try {
      if (under_way_) batch_.device.wait(batch_.stepped);
      for (const Request& request : absorptions_) {
        if (request.round) request.round->wait();
      }
      if (request_.round) request_.round->wait();
    } catch (...) {
      // The device is lost, and what was under way with it.
    }
  }

  CudaBatchState& batch_;
  Configuration& configuration_;
  const Tensors packed_;
  const std::vector<Position> positions_;
  std::vector<size_t> full_;      // the streams whose segment this token fills
  std::vector<Block> memories_;   // theirs after it
  CudaBatchState::Layout* layout_ = nullptr;  // null: not launched yet
  bool under_way_ = false;
  std::vector<Request> absorptions_;
  int64_t failed_stream_ = -1;
  Failure failure_ = kNoFailure;
  std::optional<InputCheck> check_;
  Request request_;  // of the check
};

}  // namespace

CudaBatchState::CudaBatchState(std::shared_ptr<Configuration> given, const std::vector<StreamState*>& states)
    : configuration(std::move(given)), device(configuration->device), mail(device) {
  for (StreamState* state : states) streams.push_back(static_cast<CudaStreamState*>(state));
  const Device::Scope scope(device);
  device.require_working();
  const int64_t bytes = decode_scratch_bytes(configuration->shape, int(streams.size()), 1);
  scratch_ = device.memory.take(size_t(bytes), &Ledger::scratch_bytes, "the scratch of a batch");
  device.clear(scratch_.data(), size_t(bytes));
  // The places differ from step to step, the mail's memory stays where it is, which the graphs rely on.
  for (int places = 0; places < int(layouts_.size()); ++places) layouts_[places] = make_layout(places);
  mail.open();
  device.check(cudaStreamCreateWithFlags(&capturing_.handle, cudaStreamNonBlocking));
  device.check(cudaEventCreateWithFlags(&stepped.handle, cudaEventBlockingSync | cudaEventDisableTiming));
}

CudaBatchState::~CudaBatchState() {
  const Device::Scope scope(device);
  for (const Layout& layout : layouts_) {
    if (layout.graph) cudaGraphExecDestroy(layout.graph);
  }
}

// Bits of `places`: whether query, key, value and output are on the host. The last layout has room for all.
CudaBatchState::Layout CudaBatchState::make_layout(int places) {
  const StreamConfig& config = configuration->config;
  const int64_t count = int64_t(streams.size());
  const int64_t widths[] = {config.query_width(), config.key_width(), config.value_width()};
  Layout layout;
  mail.clear();
  layout.jobs = mail.place(streams.size() * sizeof(Job));
  for (int i = 0; i < 3; ++i) {
    if (places >> i & 1) layout.inputs[i] = mail.place(bytes_of(*configuration, count, widths[i]));
  }
  layout.failures = mail.place(streams.size() * sizeof(Failure));
  layout.output = mail.place(bytes_of(*configuration, count, config.output_width()));
  layout.end = places >> 3 & 1 ? mail.bytes() : layout.output;
  return layout;
}

CudaBatchState::Layout& CudaBatchState::layout(const Tensors& packed) {
  auto bit = [](infini::Place place, int at) { return place == infini::Place::Host ? 1 << at : 0; };
  return layouts_[bit(packed.query_place, 0) | bit(packed.key_place, 1) | bit(packed.value_place, 2) |
                  bit(packed.output_place, 3)];
}

void CudaBatchState::launch(Layout& layout) {
  const bool first = !launched_;
  launched_ = true;
  if (first) {
    enqueue(layout, device.computing);
  } else {
    if (!layout.graph) layout.graph = capture(layout);
    device.check(cudaGraphLaunch(layout.graph, device.computing));
  }
  device.check(cudaEventRecord(stepped, device.computing));
}

void CudaBatchState::enqueue(const Layout& layout, cudaStream_t stream) {
  mail.send(0, layout.output, stream);
  const Job* jobs = mail.device<Job>(layout.jobs);
  device.check(launch_decode(configuration->shape, jobs, int(streams.size()), scratch_.data(), stream, 1));
  mail.fetch(layout.failures, layout.end, stream);
}

cudaGraphExec_t CudaBatchState::capture(const Layout& layout) {
  // Other threads may go on calling what must not be captured.
  device.check(cudaStreamBeginCapture(capturing_, cudaStreamCaptureModeRelaxed));
  cudaGraph_t graph = nullptr;
  try {
    enqueue(layout, capturing_);
  } catch (...) {
    cudaStreamEndCapture(capturing_, &graph);
    throw;
  }
  device.check(cudaStreamEndCapture(capturing_, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  device.check(error);
  return executable;
}

std::unique_ptr<Work> CudaBatchState::step(const Tensors& packed, const std::vector<Position>& positions) {
  return std::make_unique<StepWork>(*this, packed, positions);
}

}  // namespace infini::cuda
