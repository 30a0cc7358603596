// Launching together what several calls of one configuration need next.
//
// A Request is one call's share. The Launcher sorts requests into rounds, each of one configuration and one kind, and
// enqueues every round: one copy of the plan to the device, the kernels, one copy of the results back. What a request
// computes does not depend on its round.
#pragma once

#include <memory>
#include <vector>

#include "backend/configuration.h"
#include "backend/mail.h"
#include "launch.h"

namespace infini::cuda {

class Round;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Request {
  // In the order in which they are enqueued: those that are over soonest come first.
  enum class Kind : uint8_t {
    Check,     // where the inputs are not finite
    Decode,    // outputs of few tokens, which are appended; and the border, if they reach it
    Absorb,    // the border alone
    Retrieve,  // A_mem of the queries
    Attend,    // outputs of tokens from first_tile on, all borders, and the tail appended
  };
  Kind kind = Kind::Attend;
  Configuration* configuration = nullptr;
  // `failure`, `first_border` and `first_piece` are filled in by the round.
  Job job{};
  int first_tile = 0;
  double cost = 0;  // in Configuration::cost_of's unit, where it is worth learning from

  // Attend: the open segment's cache after the call, when tokens are left over for it.
  void *tail_keys = nullptr, *tail_values = nullptr;

  // Query, key and value, where they are on the host and travel with the plan; the job's pointers are filled in.
  struct Letter {
    const void* from = nullptr;
    size_t bytes = 0;
  };
  Letter letters[3];
  // The output has its place in the round, and is brought to the host if wanted.
  size_t output_bytes = 0;
  bool fetch_output = false;

  // Large tensors: before the kernels, and after them.
  std::vector<Copy> uploads, downloads;

  // Where it was launched.
  std::shared_ptr<Round> round;
  int place = 0;
};

class Round {
 public:
  explicit Round(Device& device);
  Round(const Round&) = delete;

  // Within a scope. Returns when everything is done; throws Error when the device is lost.
  void wait();
  // After wait(): what a request came to.
  Failure failure(int place) const { return mail_.host<Failure>(failures_at_)[place]; }
  const void* output(int place) const { return mail_.host<char>(outputs_at_[place]); }
  const void* output_on_device(int place) const { return mail_.device<char>(outputs_at_[place]); }

 private:
  friend class Launcher;
  using Requests = std::vector<Request*>;

  void enqueue(Requests requests);
  void plan(const Requests& requests);
  void plan_tiles(const Requests& requests);
  void write(const Requests& requests);
  void compute();
  void compute_state(const Job* jobs, const Workspace& workspace);

  Device& device_;
  Configuration* configuration_ = nullptr;
  Request::Kind kind_{};
  Mail mail_;
  OwnedEvent uploaded_, begun_, computed_, downloaded_;
  cudaEvent_t last_ = nullptr;  // null: nothing is under way
  double cost_ = 0;

  // The plan, and where its parts are in the mail.
  std::vector<Job> jobs_, tails_;
  std::vector<Place> borders_;
  std::vector<QueryTile> tiles_;
  int stateful_ = 0;  // jobs that have something to do with the memory: the first ones
  int pieces_ = 0;    // of those
  int64_t most_tokens_ = 0, most_tail_ = 0;
  size_t jobs_at_ = 0, tails_at_ = 0, borders_at_ = 0, tiles_at_ = 0, failures_at_ = 0;
  std::vector<size_t> letters_at_, outputs_at_;
  size_t sent_ = 0, fetched_ = 0;  // the ends of what is sent and of what is fetched, which begins with the failures
};

class Launcher {
 public:
  explicit Launcher(Device& device);
  // Within a scope and under the queue's lock.
  void launch(const std::vector<Request*>& requests);

 private:
  std::shared_ptr<Round> take();
  void launch_kind(std::vector<Request*> requests);

  Device& device_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Round>> idle_;
};

}  // namespace infini::cuda
