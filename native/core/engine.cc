#include "core/engine.h"

#include <algorithm>
#include <chrono>
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

}  // namespace

std::shared_ptr<Stream> Engine::create_stream(const StreamConfig& config, std::shared_ptr<ThreadLimit> limit) {
  return std::make_shared<Stream>(backend_->create(config), config, std::move(limit), *ledger_);
}

void Engine::start_threads(int wanted) {
  try {
    const int most = kThreadsPerCore * std::max(1, int(std::thread::hardware_concurrency()));
    while (threads_ < std::min(wanted, most)) {
      std::thread([this] { thread_main(); }).detach();  // for the life of the process: the engine is never destroyed
      ++threads_;
    }
  } catch (const std::system_error& error) {
    if (threads_ == 0) {
      throw Error(ErrorCode::Device, std::string("Expected to start a thread but the system refused: ") + error.what());
    }
  }
}

void Engine::submit(const std::shared_ptr<Call>& call) {
  Lock lock(mutex_);
  start_threads(call->stream->limit->most);
  call->stream->calls_.push_back(call);
  ++ledger_->pending_calls;
  if (call->stream->calls_.size() == 1) {
    active_.push_back(call);
    changed_.notify_one();
  }
}

void Engine::thread_main() {
  Lock lock(mutex_);
  for (;;) {
    if (const auto call = pick()) {
      ++call->stream->limit->running;
      run_units(call, lock);
      --call->stream->limit->running;
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
    const ThreadLimit& limit = *call->stream->limit;
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
      std::exception_ptr thrown;
      try {
        call->work->run(unit);
      } catch (...) {
        thrown = std::current_exception();
      }
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

// Between two stages: no unit is running. Leaves `advancing` set when the call is over.
void Engine::advance(const std::shared_ptr<Call>& call, Lock& lock) {
  call->advancing = true;
  if (!call->cancelled) {
    lock.unlock();
    int units = 0;
    std::unique_ptr<Work> work;
    std::exception_ptr thrown;
    try {
      if (!call->work) work = call->stream->begin(call->kind, call->tensors);
      units = (work ? work : call->work)->next_stage();
    } catch (...) {
      thrown = std::current_exception();
    }
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
    call->stream->commit(call->kind, call->tensors, *call->work);
    call->tokens_after = call->stream->tokens();
  }
  call->work.reset();
  deliver(call);  // before the next call can start, so that calls on one stream settle in order
  lock.lock();
  call->stream->calls_.pop_front();
  activate_next(call);
}

// `call` was its stream's first.
void Engine::activate_next(const std::shared_ptr<Call>& call) {
  active_.erase(std::find(active_.begin(), active_.end(), call));
  const auto& calls = call->stream->calls_;
  if (!calls.empty()) {
    active_.push_back(calls.front());
    changed_.notify_one();
  }
}

void Engine::deliver(const std::shared_ptr<Call>& call) {
  --ledger_->pending_calls;
  auto done = std::move(call->done);
  done(call);
}

void Engine::cancel(const std::shared_ptr<Call>& call, const Error& reason) {
  std::vector<std::shared_ptr<Call>> finished;
  {
    Lock lock(mutex_);
    cancel_locked(call, reason, finished);
  }
  for (const auto& one : finished) deliver(one);
}

void Engine::cancel_all(Stream& stream, const Error& reason) {
  std::vector<std::shared_ptr<Call>> finished;
  {
    Lock lock(mutex_);
    const auto calls = stream.calls_;
    for (const auto& call : calls) cancel_locked(call, reason, finished);
  }
  for (const auto& one : finished) deliver(one);
}

void Engine::cancel_locked(const std::shared_ptr<Call>& call, const Error& reason,
                           std::vector<std::shared_ptr<Call>>& finished) {
  auto& calls = call->stream->calls_;
  const auto place = std::find(calls.begin(), calls.end(), call);
  if (place == calls.end() || call->committing || call->cancelled) return;
  call->cancelled = reason;
  if (!call->work && !call->advancing) {  // not begun: it only leaves the queue
    const bool first = place == calls.begin();
    calls.erase(place);
    if (first) activate_next(call);
    call->error = reason;
    finished.push_back(call);
    return;
  }
  if (call->work) call->work->cancelled = true;
  changed_.notify_one();
}

}  // namespace infini
