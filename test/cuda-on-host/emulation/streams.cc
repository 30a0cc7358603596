// The runtime API: streams and events, which have nothing to wait for, and graphs, which keep work for later.
#include <chrono>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "machine.h"
#include "runtime.h"

using Work = std::vector<std::function<cudaError_t()>>;

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
};
struct CUevent_st {
  bool timed;
  bool recorded = false;
  std::chrono::steady_clock::time_point time{};
  std::shared_ptr<Capture> capture;  // of the stream it was last recorded in
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

cudaError_t wait_for(const std::shared_ptr<Capture>& capture) {
  if (!capture || !handles.captures.contains(capture)) return cudaSuccess;
  capture->broken = true;  // what is recorded has not happened and cannot be waited for
  return cudaErrorStreamCaptureUnsupported;
}

}  // namespace

cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (!valid(stream)) return raise(cudaErrorInvalidResourceHandle, "a stream that does not exist");
  if (!stream || !stream->capture) return work();
  stream->capture->work.push_back(std::move(work));
  return cudaSuccess;
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
    *stream = new CUstream_st;
    handles.streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call(
      [&] {
        if (!stream) return cudaErrorInvalidResourceHandle;
        handles.streams.erase(stream);
        delete stream;
        return cudaSuccess;
      },
      stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call([&] { return stream ? wait_for(stream->capture) : cudaSuccess; }, stream);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(
      [&] {
        // Waiting for work that is being captured, a stream joins the capture.
        if (stream && event->capture && handles.captures.contains(event->capture)) stream->capture = event->capture;
        return cudaSuccess;
      },
      stream, event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&] {
    *event = new CUevent_st{!(flags & cudaEventDisableTiming), false, {}, nullptr};
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
        return cudaSuccess;
      },
      event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&] { return wait_for(event->capture); }, event);
}

cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }

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
