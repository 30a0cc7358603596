// The runtime API: streams and events, and graphs, which keep work for later.
#include <chrono>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "machine.h"
#include "queue.h"
#include "runtime.h"

using infini::emulation::Queue;
using Work = std::vector<Queue::Work>;

namespace {

struct Capture {
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  cudaStream_t origin;
  Work work;
  bool broken = false;
};

}  // namespace

struct CUstream_st {
  std::shared_ptr<Capture> capture;
  Queue queue;  // empty unless streams are lazy
};
struct CUevent_st {
  const bool timed;
  bool recorded = false;
  std::chrono::steady_clock::time_point time{};
  cudaStream_t stream = nullptr;  // it was last recorded in, and its ticket there
  uint64_t ticket = 0;
  std::shared_ptr<Capture> capture{};  // of the stream it was last recorded in
};
struct CUgraph_st {
  Work work;
};
struct CUgraphExec_st {
  Work work;
};

namespace infini::emulation {

namespace {

struct Handles {
  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  std::set<std::shared_ptr<Capture>> captures;  // under way
};
Handles& handles = *new Handles;

bool valid(cudaStream_t stream) { return !stream || handles.streams.contains(stream); }
bool valid(cudaEvent_t event) { return handles.events.contains(event); }

// Every call that names a stream or an event: those must exist.
template <class Body, class... Named> cudaError_t call(Body body, Named... named) {
  std::lock_guard lock(device_mutex);
  if (sticky_error() != cudaSuccess) return note(sticky_error());
  if (!(valid(named) && ...)) return raise(cudaErrorInvalidResourceHandle, "a stream or event that does not exist");
  return note(body());
}

// Does what an event was recorded behind; of a stream that is gone nothing is left.
cudaError_t finish(cudaStream_t stream, uint64_t ticket) {
  return stream && valid(stream) ? stream->queue.finish(ticket) : cudaSuccess;
}
bool has_happened(cudaEvent_t event) {
  return !event->stream || !valid(event->stream) || event->stream->queue.is_done(event->ticket);
}

void advance_one_by_chance() {
  static Random& random = *new Random;
  const uint32_t number = random();
  if (number % 2 == 0) return;
  auto stream = handles.streams.begin();
  std::advance(stream, number / 2 % handles.streams.size());
  (*stream)->queue.advance();
}

cudaError_t wait_for(const std::shared_ptr<Capture>& capture) {
  if (!capture || !handles.captures.contains(capture)) return cudaSuccess;
  capture->broken = true;  // what is recorded has not happened and cannot be waited for
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace

cudaError_t enqueue(cudaStream_t stream, Queue::Work work, std::function<bool()> ready) {
  if (!valid(stream)) return raise(cudaErrorInvalidResourceHandle, "a stream that does not exist");
  if (stream && stream->capture) {
    stream->capture->work.push_back(std::move(work));
  } else if (stream && settings.lazy_streams != Lazy::No) {
    stream->queue.add([work = std::move(work)] {
      const cudaError_t error = sticky_error() != cudaSuccess ? sticky_error() : work();
      // Nobody hears of it but by an error that stays.
      return error == cudaSuccess || sticky_error() != cudaSuccess ? error : raise_sticky(error, last_report());
    }, std::move(ready));
    if (settings.lazy_streams == Lazy::Random) advance_one_by_chance();
  } else {
    return work();
  }
  return cudaSuccess;
}

cudaError_t finish_all() {
  cudaError_t first = cudaSuccess;
  for (cudaStream_t stream : handles.streams) {
    const cudaError_t error = stream->queue.finish(stream->queue.latest());
    if (first == cudaSuccess) first = error;
  }
  return first;
}

cudaError_t finish(cudaStream_t stream) {
  return stream && !stream->capture ? stream->queue.finish(stream->queue.latest()) : cudaSuccess;
}

bool breaks_capture() {
  for (const auto& capture : handles.captures) {
    const bool own = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeGlobal || (own && capture->mode == cudaStreamCaptureModeThreadLocal)) {
      capture->broken = true;
      return true;
    }
  }
  return false;
}

}  // namespace infini::emulation

using namespace infini::emulation;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return call([&] {
    if (runs_out()) return cudaErrorMemoryAllocation;
    *stream = new CUstream_st;
    handles.streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call(
      [&] {
        if (!stream) return cudaErrorInvalidResourceHandle;
        finish(stream);
        handles.streams.erase(stream);
        delete stream;
        return cudaSuccess;
      },
      stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(
      [&] {
        const cudaError_t error = stream ? wait_for(stream->capture) : cudaSuccess;
        return error != cudaSuccess ? error : finish(stream);
      },
      stream);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(
      [&] {
        // Waiting for work that is being captured, a stream joins the capture.
        if (stream && event->capture && handles.captures.contains(event->capture)) {
          stream->capture = event->capture;
          return cudaSuccess;
        }
        if (has_happened(event)) return cudaSuccess;
        const auto is_done = [other = event->stream, ticket = event->ticket] {
          return !valid(other) || other->queue.is_done(ticket);
        };
        const auto wait = [other = event->stream, ticket = event->ticket] { return finish(other, ticket); };
        return enqueue(stream, wait, is_done);
      },
      stream, event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&] {
    if (runs_out()) return cudaErrorMemoryAllocation;
    *event = new CUevent_st{!(flags & cudaEventDisableTiming)};
    handles.events.insert(*event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(
      [&] {
        handles.events.erase(event);
        delete event;
        return cudaSuccess;
      },
      event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(
      [&] {
        event->recorded = true;
        event->time = std::chrono::steady_clock::now();
        event->capture = stream ? stream->capture : nullptr;
        event->stream = nullptr;
        if (!stream || event->capture || settings.lazy_streams == Lazy::No) return cudaSuccess;
        event->stream = stream;
        event->ticket = stream->queue.add([=, ticket = stream->queue.latest() + 1] {
          const bool latest = valid(event) && event->stream == stream && event->ticket == ticket;
          if (latest) event->time = std::chrono::steady_clock::now();
          return cudaSuccess;
        });
        return cudaSuccess;
      },
      event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(
      [&] {
        const cudaError_t error = wait_for(event->capture);
        return error != cudaSuccess ? error : finish(event->stream, event->ticket);
      },
      event);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(
      [&] {
        cudaError_t error = wait_for(event->capture);
        // Time goes by between two questions.
        if (error == cudaSuccess && !has_happened(event)) error = event->stream->queue.finish_one();
        return error == cudaSuccess && !has_happened(event) ? cudaErrorNotReady : error;
      },
      event);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(
      [&] {
        if (!start->timed || !end->timed || !start->recorded || !end->recorded) return cudaErrorInvalidResourceHandle;
        *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
        return cudaSuccess;
      },
      start, end);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call(
      [&] {
        if (!stream) return cudaErrorStreamCaptureUnsupported;
        if (stream->capture) return cudaErrorInvalidValue;
        stream->capture = std::make_shared<Capture>(Capture{mode, std::this_thread::get_id(), stream, {}});
        handles.captures.insert(stream->capture);
        return cudaSuccess;
      },
      stream);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call(
      [&] {
        *graph = nullptr;
        if (!stream || !stream->capture || stream->capture->origin != stream) return cudaErrorInvalidValue;
        const std::shared_ptr<Capture> capture = stream->capture;
        handles.captures.erase(capture);
        for (cudaStream_t each : handles.streams) {
          if (each->capture == capture) each->capture = nullptr;
        }
        if (capture->broken) return cudaErrorStreamCaptureInvalidated;
        *graph = new CUgraph_st{std::move(capture->work)};
        return cudaSuccess;
      },
      stream);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return call([&] {
    if (runs_out()) return cudaErrorMemoryAllocation;
    *executable = new CUgraphExec_st{graph->work};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return call(
      [&] {
        for (const auto& work : executable->work) {
          if (cudaError_t error = enqueue(stream, work)) return error;
        }
        return cudaSuccess;
      },
      stream);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call([&] {
    delete graph;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return call([&] {
    delete executable;
    return cudaSuccess;
  });
}

}  // extern "C"
