#include "core/engine.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <system_error>
#include <thread>

namespace infini {
namespace {

// A call keeps its thread this long before others get a turn: one whose stages have one unit each, which no other thread can
// help, and any other. So a token's few short stages wait for one unit of a long call, not for one each.
constexpr std::chrono::microseconds kTimeSlice{2000}, kSharedSlice{250};
constexpr int kThreadsPerCore = 4;  // at most, however many a handle asks for

// Made in good time: to copy an Error needs no memory, to make one does. Never destroyed: threads outlive exit().
const Error& kOutOfMemory =
    *new Error(ErrorCode::OutOfMemory, "Expected room for the scratch of one call but the allocation failed");

Error as_error(std::exception_ptr thrown) noexcept {
  try {
    try {
      std::rethrow_exception(thrown);
    } catch (const Error& error) {
      return error;
    } catch (const std::bad_alloc&) {
      return kOutOfMemory;
    } catch (const std::exception& error) {
      return Error(ErrorCode::Device, error.what());
    } catch (...) {
      return Error(ErrorCode::Device, "The call failed for an unknown reason");
    }
  } catch (...) {
    return kOutOfMemory;
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
  enqueue(calls);
  for (const auto& call : calls) {
    ++ledger_->pending_calls;
    for (const auto& stream : call->streams()) call->behind += stream->calls_.front() != call;
    if (call->behind == 0) activate(call);
  }
}

// Takes all the memory that they will need to leave again. All or none.
void Engine::enqueue(const Calls& calls) {
  const size_t most = submitted_ + calls.size();
  if (most > active_.capacity()) active_.reserve(2 * most);
  try {
    for (const auto& call : calls) {
      for (const auto& stream : call->streams()) stream->calls_.push_back(call);
    }
  } catch (...) {
    for (const auto& call : calls) {
      for (const auto& stream : call->streams()) std::erase(stream->calls_, call);
    }
    throw;
  }
  submitted_ = most;
}

void Engine::activate(const std::shared_ptr<Call>& call) {
  active_.push_back(call);
  changed_.notify_one();
}

// Out of every queue, wherever in it: whoever thereby comes first everywhere has its turn.
void Engine::dequeue(const std::shared_ptr<Call>& call) {
  --submitted_;
  if (call->behind == 0) {
    const auto place = std::find(active_.begin(), active_.end(), call);
    if (size_t(place - active_.begin()) < turn_) --turn_;  // who comes next still does
    active_.erase(place);
  }
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

// Units, and the steps to the next stages, for a time slice.
void Engine::run_units(const std::shared_ptr<Call>& call, Lock& lock) {
  const auto begin = std::chrono::steady_clock::now();
  const auto is_over = [&] {
    return std::chrono::steady_clock::now() - begin > (call->units > 1 ? kSharedSlice : kTimeSlice);
  };
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
    if (stage_over) {
      if (call->running > 0) return;
      advance(call, lock);
      if (call->advancing) return;  // finished
      if (call->units > 1) changed_.notify_all();
    }
    if (is_over()) {
      changed_.notify_all();
      return;
    }
  }
}

void Engine::gather_main() {
  Lock lock(mutex_);
  for (;;) {
    Calls round, waiting;
    try {
      round.reserve(2 * submitted_);
      waiting.reserve(2 * submitted_);
    } catch (const std::bad_alloc&) {  // the first call makes room for the others
      const auto call = active_.front();
      if (!call->cancelled) call->cancelled = kOutOfMemory;
      advance(call, lock);
      continue;
    }
    prepare_round(round, waiting, lock);
    if (!round.empty()) {
      run_round(round, lock);
    } else if (active_.empty()) {
      changed_.wait_for(lock, std::chrono::hours(1));
    }
  }
}

// Takes every call to its next stage. Those that are over make room for others, which still join; while there is
// room for them in the vectors, which do not grow.
void Engine::prepare_round(Calls& round, Calls& waiting, Lock& lock) {
  for (;;) {
    waiting.clear();
    for (const auto& call : active_) {
      if (call->running == 0 && round.size() + waiting.size() < round.capacity()) waiting.push_back(call);
    }
    if (waiting.empty()) return;
    for (const auto& call : waiting) call->advancing = true;  // from here on a cancellation only marks it
    for (const auto& call : waiting) {
      advance(call, lock);
      if (call->advancing) continue;  // finished
      call->running = 1;
      round.push_back(call);
    }
  }
}

void Engine::run_round(const Calls& calls, Lock& lock) {
  lock.unlock();
  std::optional<KernelTime> time(*ledger_);
  const auto refused = caught([&] {
    std::vector<Work*> works;
    for (const auto& call : calls) {
      if (!only_copies(call->kind)) call->work->gather(works);
    }
    if (!works.empty()) backend_->launch(works.data(), int(works.size()));
  });
  for (const auto& call : calls) {
    const bool stays_off = refused && !only_copies(call->kind);
    call->thrown = stays_off ? refused : caught([&] {
      for (int unit = 0; unit < call->units; ++unit) call->work->run(unit);  // several only of a work made of others
    });
  }
  time.reset();
  lock.lock();
  for (const auto& call : calls) {
    ++ledger_->units;
    call->running = 0;
    const auto thrown = std::move(call->thrown);
    if (thrown && !call->cancelled) call->cancelled = as_error(thrown);
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

void Engine::deliver_all(std::shared_ptr<Call> first) {
  while (first) {
    const auto call = std::move(first);
    first = std::move(call->next);
    deliver(call);
  }
}

void Engine::cancel(std::span<const std::shared_ptr<Call>> calls, const Error& reason) noexcept {
  std::shared_ptr<Call> finished;
  std::shared_ptr<Call>* last = &finished;
  {
    Lock lock(mutex_);
    for (const auto& call : calls) {
      if (cancel_locked(call, reason)) last = &(*last = call)->next;
    }
  }
  deliver_all(std::move(finished));
}

void Engine::cancel_all(Stream& stream, const Error& reason) noexcept { cancel_queued(stream, nullptr, reason); }

void Engine::cancel_all(Batch& batch, const Error& reason) noexcept {
  cancel_queued(*batch.streams.front(), &batch, reason);
}

// All calls in the stream's queue, or those of a batch.
void Engine::cancel_queued(Stream& stream, const Batch* batch, const Error& reason) {
  std::shared_ptr<Call> finished;
  std::shared_ptr<Call>* last = &finished;
  {
    Lock lock(mutex_);
    for (size_t i = 0; i < stream.calls_.size();) {
      const auto call = stream.calls_[i];
      const bool wanted = !batch || call->batch.get() == batch;
      if (wanted && cancel_locked(call, reason)) {
        last = &(*last = call)->next;  // out of the queue: the next one is in its place
      } else {
        ++i;
      }
    }
  }
  deliver_all(std::move(finished));
}

// True when it is over, for it had not begun. Not for a call that was never submitted: it would count as one of these.
bool Engine::cancel_locked(const std::shared_ptr<Call>& call, const Error& reason) {
  if (call->committing || call->cancelled) return false;
  call->cancelled = reason;
  if (!call->work && !call->advancing) {  // it only leaves the queues
    dequeue(call);
    call->error = reason;
    return true;
  }
  if (call->work) call->work->cancelled = true;
  changed_.notify_one();
  return false;
}

}  // namespace infini
