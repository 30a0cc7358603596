// What the addon keeps for one JavaScript thread (the main thread or a worker): its open streams, its pending
// calls and the way back from the engine's threads.
#pragma once

#include <napi.h>

#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/engine.h"

namespace infini {

struct StreamHandle;

// A call on its way back to JavaScript. Made before the call begins, for it must get through when memory is short.
struct Arrival {
  uint32_t ticket;
  std::shared_ptr<Call> call;
  std::shared_ptr<Arrival> self;  // while it is on its way
};

// Carries finished calls to the JavaScript thread. Shared with the engine's threads, which may outlive it: after
// close() whatever still arrives is dropped.
class Channel {
 public:
  void open(Napi::Env env);
  void post(const std::shared_ptr<Arrival>& arrival);
  void close();
  void keep_alive(Napi::Env env, bool alive);  // whether the process waits for it

 private:
  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;
};

class Environment : public std::enable_shared_from_this<Environment> {
 public:
  static void attach(Napi::Env env);
  static Environment& of(Napi::Env env);

  // A call and its callback(error, tokens), which is called once, later, on this thread.
  struct Submission {
    std::shared_ptr<Call> call;
    Napi::Function callback;
  };
  // Queues the calls at once, in this order; returns the ticket of the first: the others' follow it.
  uint32_t submit(Napi::Env env, Engine& engine, const std::vector<Submission>& submissions);
  // All of them at once; if there is no memory for that, one after the other.
  void cancel(std::span<const uint32_t> tickets, const Error& reason);
  // The call whose callback is running, for it to fetch the result.
  const Call* settling() const { return settling_; }

  std::unordered_set<StreamHandle*> streams;  // not closed

 private:
  friend class Channel;
  struct Pending {
    Engine* engine;
    std::shared_ptr<Call> call;
    Napi::FunctionReference callback;
  };
  void settle(Napi::Env env, uint32_t ticket, const std::shared_ptr<Call>& call);
  void shut_down();

  std::shared_ptr<Channel> channel_ = std::make_shared<Channel>();
  std::unordered_map<uint32_t, Pending> pending_;
  uint32_t next_ticket_ = 1;
  const Call* settling_ = nullptr;
};

}  // namespace infini
