#include "backend/round.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/segments.h"

namespace infini::cuda {
namespace {

constexpr size_t kMostIdleRounds = 8;

// Whether the request reads the memory or absorbs into it; decoding reads it where it is.
bool is_stateful(const Request* request) {
  const Job& job = request->job;
  switch (request->kind) {
    case Request::Kind::Check: return false;
    case Request::Kind::Decode: return job.borders > 0;
    case Request::Kind::Absorb: return true;
    default: return job.borders > 0 || job.absorbed;
  }
}

int pieces_in_workspace(const Request* request) { return is_stateful(request) ? request->job.pieces : 0; }

template <class T> void copy_to(const Mail& mail, size_t at, const std::vector<T>& values) {
  if (!values.empty()) std::memcpy(mail.host<T>(at), values.data(), values.size() * sizeof(T));
}

}  // namespace

Round::Round(Device& device) : device_(device), mail_(device) {
  for (OwnedEvent* event : {&uploaded_, &downloaded_}) {
    device.check(cudaEventCreateWithFlags(&event->handle, cudaEventBlockingSync | cudaEventDisableTiming));
  }
  for (OwnedEvent* event : {&begun_, &computed_}) {
    device.check(cudaEventCreateWithFlags(&event->handle, cudaEventBlockingSync));
  }
}

void Round::wait() {
  if (!last_) return;
  device_.wait(last_);
  last_ = nullptr;
  if (cost_ == 0) return;
  float milliseconds = 0;
  device_.check(cudaEventElapsedTime(&milliseconds, begun_, computed_));
  configuration_->learn_speed(cost_, milliseconds * 1e-3);
}

void Round::enqueue(Requests requests) {
  configuration_ = requests.front()->configuration;
  kind_ = requests.front()->kind;
  const auto stateless = std::stable_partition(requests.begin(), requests.end(), is_stateful);
  stateful_ = int(stateless - requests.begin());
  mail_.clear();
  plan(requests);
  mail_.open();
  write(requests);

  bool uploads = false, downloads = false;
  for (const Request* request : requests) {
    uploads |= !request->uploads.empty();
    downloads |= !request->downloads.empty();
  }
  if (uploads) {
    device_.order_after_computing(device_.uploading);
    for (const Request* request : requests) {
      for (const Copy& copy : request->uploads) {
        device_.check(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, cudaMemcpyHostToDevice, device_.uploading));
      }
    }
    device_.check(cudaEventRecord(uploaded_, device_.uploading));
    device_.check(cudaStreamWaitEvent(device_.computing, uploaded_, 0));
  }
  mail_.send(0, sent_, device_.computing);
  device_.check(cudaEventRecord(begun_, device_.computing));
  compute();
  mail_.fetch(failures_at_, fetched_, device_.computing);
  device_.check(cudaEventRecord(computed_, device_.computing));
  last_ = computed_;
  if (downloads) {
    device_.check(cudaStreamWaitEvent(device_.downloading, computed_, 0));
    for (const Request* request : requests) {
      for (const Copy& copy : request->downloads) {
        device_.check(cudaMemcpyAsync(copy.to, copy.from, copy.bytes, cudaMemcpyDeviceToHost, device_.downloading));
      }
    }
    device_.check(cudaEventRecord(downloaded_, device_.downloading));
    last_ = downloaded_;
  }
}

void Round::plan(const Requests& requests) {
  jobs_.clear();
  tails_.clear();
  borders_.clear();
  tiles_.clear();
  pieces_ = 0;
  most_tokens_ = most_tail_ = 0;
  cost_ = 0;
  for (Request* request : requests) {
    request->place = int(jobs_.size());
    Job job = request->job;
    job.first_border = int(borders_.size());
    job.first_piece = pieces_;
    for (int border = 0; border < job.borders; ++border) borders_.push_back({int(jobs_.size()), border});
    pieces_ += pieces_in_workspace(request);
    most_tokens_ = std::max<int64_t>(most_tokens_, job.tokens);
    cost_ += request->cost;
    if (request->tail_keys) {
      Job tail = job;
      tail.cached_keys = request->tail_keys;
      tail.cached_values = request->tail_values;
      tails_.push_back(tail);
      const Pieces pieces(job.open, job.tokens, configuration_->config.segment_length);
      most_tail_ = std::max(most_tail_, pieces[pieces.size() - 1].count);
    }
    jobs_.push_back(job);
  }
  plan_tiles(requests);

  jobs_at_ = mail_.place(jobs_.size() * sizeof(Job));
  tails_at_ = mail_.place(tails_.size() * sizeof(Job));
  borders_at_ = mail_.place(borders_.size() * sizeof(Place));
  tiles_at_ = mail_.place(tiles_.size() * sizeof(QueryTile));
  letters_at_.clear();
  for (const Request* request : requests) {
    for (const auto& letter : request->letters) letters_at_.push_back(mail_.place(letter.bytes));
  }
  failures_at_ = mail_.place(requests.size() * sizeof(Failure));
  sent_ = fetched_ = mail_.bytes();
  outputs_at_.assign(requests.size(), 0);
  for (const bool fetched : {true, false}) {
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i]->fetch_output == fetched) outputs_at_[i] = mail_.place(requests[i]->output_bytes);
    }
    if (fetched) fetched_ = mail_.bytes();
  }
}

// Longest first: the later a tile lies in its segment, the more keys it sees.
void Round::plan_tiles(const Requests& requests) {
  const Shape& shape = configuration_->shape;
  if (kind_ == Request::Kind::Retrieve) {
    const int rows = retrieve_tile_rows(shape);
    for (int job = 0; job < int(jobs_.size()); ++job) {
      for (int tile = 0; tile * int64_t(rows) < jobs_[job].tokens; ++tile) tiles_.push_back({job, 0, tile});
    }
  }
  if (kind_ != Request::Kind::Attend) return;
  const int rows = forward_tile_rows(shape);
  const int64_t longest = std::min<int64_t>(most_tokens_, shape.segment_length);
  for (int tile = int((longest - 1) / rows); tile >= 0; --tile) {
    for (int job = 0; job < int(jobs_.size()); ++job) {
      if (tile < requests[job]->first_tile) continue;
      const Pieces pieces(jobs_[job].open, jobs_[job].tokens, shape.segment_length);
      for (int piece = 0; piece < jobs_[job].pieces; ++piece) {
        if (int64_t(tile) * rows < pieces[piece].count) tiles_.push_back({job, piece, tile});
      }
    }
  }
}

// Fills the mail's host side, and in the jobs what lies in its device side.
void Round::write(const Requests& requests) {
  for (size_t i = 0; i < requests.size(); ++i) {
    const Request& request = *requests[i];
    Job& job = jobs_[i];
    const void** const addresses[] = {&job.query, &job.key, &job.value};
    for (int input = 0; input < 3; ++input) {
      const auto& [from, bytes] = request.letters[input];
      if (bytes == 0) continue;
      const size_t at = letters_at_[3 * i + input];
      std::memcpy(mail_.host<char>(at), from, bytes);
      *addresses[input] = mail_.device<char>(at);
    }
    if (request.output_bytes > 0) job.output = mail_.device<char>(outputs_at_[i]);
    job.failure = mail_.device<Failure>(failures_at_) + i;
    mail_.host<Failure>(failures_at_)[i] = kNoFailure;
  }
  // The same jobs again, but for where their keys and values go.
  for (size_t i = 0, tail = 0; i < requests.size(); ++i) {
    if (!requests[i]->tail_keys) continue;
    tails_[tail].key = jobs_[i].key;
    tails_[tail++].value = jobs_[i].value;
  }
  copy_to(mail_, jobs_at_, jobs_);
  copy_to(mail_, tails_at_, tails_);
  copy_to(mail_, borders_at_, borders_);
  copy_to(mail_, tiles_at_, tiles_);
}

void Round::compute() {
  const Shape& shape = configuration_->shape;
  const Job* jobs = mail_.device<Job>(jobs_at_);
  const QueryTile* tiles = mail_.device<QueryTile>(tiles_at_);
  const int count = int(jobs_.size()), tile_count = int(tiles_.size());
  const Workspace workspace = configuration_->workspace(device_.workspace(), pieces_, int64_t(borders_.size()));
  cudaStream_t stream = device_.computing;
  switch (kind_) {
    case Request::Kind::Check:
      device_.check(launch_check(shape, jobs, count, most_tokens_, stream));
      break;
    case Request::Kind::Decode: {
      void* scratch = device_.decode_scratch(size_t(decode_scratch_bytes(shape, count, int(most_tokens_))));
      device_.check(launch_decode(shape, jobs, count, scratch, stream, int(most_tokens_)));
      compute_state(jobs, workspace);
      break;
    }
    case Request::Kind::Absorb:
      compute_state(jobs, workspace);
      break;
    case Request::Kind::Retrieve:
      compute_state(jobs, workspace);
      device_.check(launch_retrieve(shape, jobs, tiles, tile_count, workspace, stream));
      break;
    case Request::Kind::Attend:
      compute_state(jobs, workspace);
      device_.check(launch_forward(shape, jobs, tiles, tile_count, workspace, stream));
      if (!tails_.empty()) {
        device_.check(launch_append(shape, mail_.device<Job>(tails_at_), int(tails_.size()), int(most_tail_), stream));
      }
  }
}

void Round::compute_state(const Job* jobs, const Workspace& workspace) {
  if (stateful_ == 0) return;
  const Shape& shape = configuration_->shape;
  const Place* borders = mail_.device<Place>(borders_at_);
  const int border_count = int(borders_.size());
  cudaStream_t stream = device_.computing;
  if (border_count > 0) device_.check(launch_key_sums(shape, jobs, borders, border_count, workspace, stream));
  device_.check(launch_normalizers(shape, jobs, stateful_, workspace, stream));
  if (border_count > 0) device_.check(launch_sums(shape, jobs, borders, border_count, workspace, stream));
  device_.check(launch_chain(shape, jobs, stateful_, workspace, stream));
}

Launcher::Launcher(Device& device) : device_(device) {
  idle_.reserve(kMostIdleRounds);  // a round that comes back asks for no memory
}

std::shared_ptr<Round> Launcher::take() {
  std::unique_ptr<Round> round;
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      round = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (!round) round = std::make_unique<Round>(device_);
  return {round.release(), [this](Round* done) {
            const Device::Scope scope(device_);
            if (done->last_) cudaEventSynchronize(done->last_);
            std::unique_ptr<Round> owned(done);
            std::lock_guard lock(mutex_);
            done->last_ = nullptr;
            if (idle_.size() < kMostIdleRounds) idle_.push_back(std::move(owned));
          }};
}

void Launcher::launch(const std::vector<Request*>& requests) {
  auto by_kind = [](const Request* a, const Request* b) {
    return std::make_pair(a->kind, a->configuration) < std::make_pair(b->kind, b->configuration);
  };
  std::vector<Request*> sorted = requests;
  std::stable_sort(sorted.begin(), sorted.end(), by_kind);
  for (auto begin = sorted.begin(); begin != sorted.end();) {
    const auto end = std::upper_bound(begin, sorted.end(), *begin, by_kind);
    launch_kind({begin, end});
    begin = end;
  }
}

// In as few rounds as the workspace allows: every single request fits, its call has seen to that.
void Launcher::launch_kind(std::vector<Request*> requests) {
  const Configuration& configuration = *requests.front()->configuration;
  int64_t pieces = 0, borders = 0;
  auto count = [&](const Request* request) {
    pieces += pieces_in_workspace(request);
    borders += request->job.borders;
  };
  for (const Request* request : requests) count(request);
  try {
    device_.reserve_workspace(std::min(configuration.workspace_bytes(pieces, borders), device_.most_workspace()));
  } catch (const Error& error) {
    if (error.code != ErrorCode::OutOfMemory) throw;  // what there is will do
  }
  for (size_t begin = 0; begin < requests.size();) {
    pieces = borders = 0;
    size_t end = begin;
    do {
      count(requests[end++]);
      if (end == requests.size()) break;
    } while (configuration.workspace_bytes(pieces + pieces_in_workspace(requests[end]),
                                           borders + requests[end]->job.borders) <= device_.workspace().bytes());
    const auto round = take();
    for (size_t i = begin; i < end; ++i) requests[i]->round = round;
    round->enqueue({requests.begin() + begin, requests.begin() + end});
    begin = end;
  }
}

}  // namespace infini::cuda
