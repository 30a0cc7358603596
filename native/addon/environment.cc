#include "addon/environment.h"

#include "addon/convert.h"
#include "addon/handles.h"

namespace infini {
namespace {

// Made in good time: to make an Error needs memory.
const Error kThreadEnded(ErrorCode::Closed, "The thread that owned the stream has ended");

}  // namespace

void Channel::open(Napi::Env env) {
  const Napi::String name = Napi::String::New(env, "infini-stream");
  const auto arrive = [](napi_env env, napi_value, void*, void* data) {
    const auto arrival = std::move(static_cast<Arrival*>(data)->self);
    if (!env) return;  // the thread is going away: nobody waits any more
    Napi::HandleScope scope(env);
    Environment::of(env).settle(env, arrival->ticket, arrival->call);
  };
  const napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr,
                                                             nullptr, arrive, &function_);
  if (status != napi_ok) throw Napi::Error::New(env);
  keep_alive(env, false);
}

void Channel::post(const std::shared_ptr<Arrival>& arrival) {
  std::lock_guard lock(mutex_);
  if (!function_) return;
  arrival->self = arrival;
  if (napi_call_threadsafe_function(function_, arrival.get(), napi_tsfn_nonblocking) != napi_ok) arrival->self.reset();
}

void Channel::close() {
  std::lock_guard lock(mutex_);
  if (!function_) return;
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
  function_ = nullptr;
}

void Channel::keep_alive(Napi::Env env, bool alive) {
  if (!function_) return;
  if (alive) {
    napi_ref_threadsafe_function(env, function_);
  } else {
    napi_unref_threadsafe_function(env, function_);
  }
}

void Environment::attach(Napi::Env env) {
  auto environment = std::make_shared<Environment>();
  environment->channel_->open(env);
  env.SetInstanceData(new std::shared_ptr<Environment>(environment));
  // Registered after the channel's own hook and so run before it: the engine must know first.
  env.AddCleanupHook([](Environment* self) { self->shut_down(); }, environment.get());
}

Environment& Environment::of(Napi::Env env) { return **env.GetInstanceData<std::shared_ptr<Environment>>(); }

uint32_t Environment::submit(Napi::Env env, Engine& engine, const std::vector<Submission>& submissions) {
  const uint32_t first = next_ticket_;
  const bool idle = pending_.empty();
  try {
    std::vector<std::shared_ptr<Call>> calls;
    for (const auto& [call, callback] : submissions) {
      const uint32_t ticket = next_ticket_++;
      call->done = [channel = channel_, arrival = std::make_shared<Arrival>(ticket)](std::shared_ptr<Call> finished) {
        arrival->call = std::move(finished);
        channel->post(arrival);
      };
      pending_[ticket] = {&engine, call, Napi::Persistent(callback)};
      calls.push_back(call);
    }
    engine.submit(calls);
  } catch (...) {
    for (uint32_t ticket = first; ticket != next_ticket_; ++ticket) pending_.erase(ticket);
    throw;
  }
  if (idle && !pending_.empty()) channel_->keep_alive(env, true);
  return first;
}

void Environment::cancel(std::span<const uint32_t> tickets, const Error& reason) {
  try {
    std::unordered_map<Engine*, std::vector<std::shared_ptr<Call>>> calls;
    for (const uint32_t ticket : tickets) {
      const auto found = pending_.find(ticket);
      if (found != pending_.end()) calls[found->second.engine].push_back(found->second.call);
    }
    for (const auto& [engine, theirs] : calls) engine->cancel(theirs, reason);
  } catch (const std::bad_alloc&) {
    for (const uint32_t ticket : tickets) {
      const auto found = pending_.find(ticket);
      if (found != pending_.end()) found->second.engine->cancel({&found->second.call, 1}, reason);
    }
  }
}

void Environment::settle(Napi::Env env, uint32_t ticket, const std::shared_ptr<Call>& call) {
  const auto found = pending_.find(ticket);
  if (found == pending_.end()) return;
  const Napi::FunctionReference callback = std::move(found->second.callback);
  pending_.erase(found);
  if (pending_.empty()) channel_->keep_alive(env, false);
  settling_ = call.get();
  try {
    callback.Call({call->error ? to_javascript(env, *call->error).Value() : env.Null(),
                   Napi::Number::New(env, double(call->tokens_after))});
  } catch (const Napi::Error&) {
    // The wrapper's callback does not throw; a thread that is being terminated does.
  }
  settling_ = nullptr;
}

// The JavaScript thread ends, perhaps in the middle of work: stop it, tell nobody.
void Environment::shut_down() {
  channel_->close();
  while (!streams.empty()) (*streams.begin())->close(kThreadEnded);
  for (const auto& [ticket, pending] : pending_) pending.engine->cancel({&pending.call, 1}, kThreadEnded);
  pending_.clear();
}

}  // namespace infini
