#include "core/engine.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <system_error>
#include <thread>

namespace infini {
namespace {

// A call whose stages have one unit each keeps its thread this long before others get a turn.
constexpr std::chrono::milliseconds kTimeSlice{2};
constexpr int kThreadsPerCore = 4;  // at most, however many a handle asks for

Error as_error(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::OutOfMemory, "Expected room for the scratch of one call but the allocation failed");
  } catch (const std::exception& error) {
    return Error(ErrorCode::Device, error.what());
  } catch (...) {
    return Error(ErrorCode::Device, "The call failed for an unknown reason");
  }
}

template <class Body> std::exception_ptr caught(Body body) {
  try {
    body();
    return nullptr;
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace

std::shared_ptr<Stream> Engine::create_stream(const StreamConfig& config) {
  return std::make_shared<Stream>(*backend_, backend_->create(config), config);
}

void Engine::start_threads(int wanted) {
  try {
    static const int cores = std::max(1, int(std::thread::hardware_concurrency()));  // asks the system
    const int most = backend_->gathers() ? 1 : kThreadsPerCore * cores;
    while (threads_ < std::min(wanted, most)) {
      // For the life of the process: the engine is never destroyed.
      std::thread([this] { backend_->gathers() ? gather_main() : thread_main(); }).detach();
      ++threads_;
    }
  } catch (const std::system_error& error) {
    if (threads_ == 0) {
      throw Error(ErrorCode::Device, std::string("Expected to start a thread but the system refused: ") + error.what());
    }
  }
}

void Engine::submit(const Calls& calls) {
  Lock lock(mutex_);
  for (const auto& call : calls) start_threads(call->limit->most);
  for (const auto& call : calls) enqueue(call);
}

void Engine::enqueue(const std::shared_ptr<Call>& call) {
  ++ledger_->pending_calls;
  for (const auto& stream : call->streams()) {
    if (!stream->calls_.empty()) ++call->behind;
    stream->calls_.push_back(call);
  }
  if (call->behind == 0) activate(call);
}

void Engine::activate(const std::shared_ptr<Call>& call) {
  active_.push_back(call);
  changed_.notify_one();
}

// Out of every queue, wherever in it: whoever thereby comes first everywhere has its turn.
void Engine::dequeue(const std::shared_ptr<Call>& call) {
  if (call->behind == 0) active_.erase(std::find(active_.begin(), active_.end(), call));
  for (const auto& stream : call->streams()) {
    auto& calls = stream->calls_;
    const auto place = std::find(calls.begin(), calls.end(), call);
    const bool first = place == calls.begin();
    calls.erase(place);
    if (first && !calls.empty() && --calls.front()->behind == 0) activate(calls.front());
  }
}

void Engine::thread_main() {
  Lock lock(mutex_);
  for (;;) {
    if (const auto call = pick()) {
      ++call->limit->running;
      run_units(call, lock);
      --call->limit->running;
    } else {
      // Not wait(): its symbol is newer than the libstdc++ of RHEL 9.
      changed_.wait_for(lock, std::chrono::hours(1));
    }
  }
}

// The next call, in turn, that has something to do for one more thread.
std::shared_ptr<Call> Engine::pick() {
  for (size_t i = 0; i < active_.size(); ++i) {
    const auto& call = active_[(turn_ + i) % active_.size()];
    const bool has_unit = !call->cancelled && call->next_unit < call->units;
    const bool may_advance = call->running == 0 && !has_unit;
    const ThreadLimit& limit = *call->limit;
    if (!call->advancing && (has_unit || may_advance) && limit.running < limit.most) {
      turn_ = (turn_ + i + 1) % active_.size();
      return call;
    }
  }
  return nullptr;
}

// One unit, or the step to the next stage; more of them only while the call offers one unit at a time.
void Engine::run_units(const std::shared_ptr<Call>& call, Lock& lock) {
  const auto deadline = std::chrono::steady_clock::now() + kTimeSlice;
  for (;;) {
    if (!call->cancelled && call->next_unit < call->units) {
      const int unit = call->next_unit++;
      ++call->running;
      lock.unlock();
      const auto thrown = caught([&] {
        const KernelTime time(*ledger_);
        call->work->run(unit);
      });
      lock.lock();
      ++ledger_->units;
      --call->running;
      if (thrown && !call->cancelled) call->cancelled = as_error(thrown);
    }
    const bool stage_over = call->cancelled || call->next_unit >= call->units;
    if (!stage_over || call->running > 0) return;
    advance(call, lock);
    if (call->advancing) return;  // finished
    if (call->units > 1 || std::chrono::steady_clock::now() > deadline) {
      changed_.notify_all();
      return;
    }
  }
}

void Engine::gather_main() {
  Lock lock(mutex_);
  for (;;) {
    const Calls round = prepare_round(lock);
    if (!round.empty()) {
      run_round(round, lock);
    } else if (active_.empty()) {
      changed_.wait_for(lock, std::chrono::hours(1));
    }
  }
}

// Takes every call to its next stage. Those that are over make room for others, which still join.
Engine::Calls Engine::prepare_round(Lock& lock) {
  Calls round;
  for (Calls waiting = active_; !waiting.empty();) {
    for (const auto& call : waiting) call->advancing = true;  // from here on a cancellation only marks it
    for (const auto& call : waiting) {
      advance(call, lock);
      if (call->advancing) continue;  // finished
      call->running = 1;
      round.push_back(call);
    }
    waiting.clear();
    for (const auto& call : active_) {
      if (call->running == 0) waiting.push_back(call);
    }
  }
  return round;
}

void Engine::run_round(const Calls& calls, Lock& lock) {
  lock.unlock();
  std::vector<Work*> works;
  for (const auto& call : calls) {
    if (!only_copies(call->kind)) call->work->gather(works);
  }
  std::optional<KernelTime> time(*ledger_);
  const auto refused = caught([&] {
    if (!works.empty()) backend_->launch(works.data(), int(works.size()));
  });
  std::vector<std::exception_ptr> thrown;
  for (const auto& call : calls) {
    const bool stays_off = refused && !only_copies(call->kind);
    thrown.push_back(stays_off ? refused : caught([&] {
      for (int unit = 0; unit < call->units; ++unit) call->work->run(unit);  // several only of a work made of others
    }));
  }
  time.reset();
  lock.lock();
  for (size_t i = 0; i < calls.size(); ++i) {
    ++ledger_->units;
    calls[i]->running = 0;
    if (thrown[i] && !calls[i]->cancelled) calls[i]->cancelled = as_error(thrown[i]);
  }
}

// Between two stages: no unit is running. Leaves `advancing` set when the call is over.
void Engine::advance(const std::shared_ptr<Call>& call, Lock& lock) {
  call->advancing = true;
  if (!call->cancelled) {
    lock.unlock();
    int units = 0;
    std::unique_ptr<Work> work;
    const auto thrown = caught([&] {
      if (!call->work) work = call->begin(*backend_);
      units = (work ? work : call->work)->next_stage();
    });
    lock.lock();
    if (work) call->work = std::move(work);
    if (thrown && !call->cancelled) call->cancelled = as_error(thrown);
    if (!call->cancelled && units > 0) {
      call->units = units;
      call->next_unit = 0;
      call->advancing = false;
      return;
    }
  }
  finish(call, lock);
}

void Engine::finish(const std::shared_ptr<Call>& call, Lock& lock) {
  call->error = call->cancelled;
  call->committing = true;
  lock.unlock();
  if (!call->error) {
    if (const auto thrown = caught([&] { call->commit(); })) call->error = as_error(thrown);
  }
  call->work.reset();
  deliver(call);  // before the next call can start, so that calls on one stream settle in order
  lock.lock();
  dequeue(call);
}

void Engine::deliver(const std::shared_ptr<Call>& call) {
  --ledger_->pending_calls;
  auto done = std::move(call->done);
  done(call);
}

void Engine::cancel(const Calls& calls, const Error& reason) {
  Lock lock(mutex_);
  cancel_and_unlock(calls, reason, lock);
}

void Engine::cancel_all(Stream& stream, const Error& reason) {
  Lock lock(mutex_);
  cancel_and_unlock({stream.calls_.begin(), stream.calls_.end()}, reason, lock);
}

void Engine::cancel_all(Batch& batch, const Error& reason) {
  Lock lock(mutex_);
  Calls steps;
  for (const auto& call : batch.streams.front()->calls_) {
    if (call->batch.get() == &batch) steps.push_back(call);
  }
  cancel_and_unlock(steps, reason, lock);
}

void Engine::cancel_and_unlock(const Calls& calls, const Error& reason, Lock& lock) {
  Calls finished;
  for (const auto& call : calls) cancel_locked(call, reason, finished);
  lock.unlock();
  for (const auto& call : finished) deliver(call);
}

// Not for a call that was never submitted: it would count as one that has not begun.
void Engine::cancel_locked(const std::shared_ptr<Call>& call, const Error& reason, Calls& finished) {
  if (call->committing || call->cancelled) return;
  call->cancelled = reason;
  if (!call->work && !call->advancing) {  // not begun: it only leaves the queues
    dequeue(call);
    call->error = reason;
    finished.push_back(call);
    return;
  }
  if (call->work) call->work->cancelled = true;
  changed_.notify_one();
}

}  // namespace infini
