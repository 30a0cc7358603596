// The CPU backend itself under a storm of calls from several threads: attend, retrieve, batches' steps, snapshots,
// cancellations, and calls on the calling thread with the crew's help. What succeeded is then done again by one thread
// on streams of their own, and every bit must be the same. Compiled with -fsanitize=thread by core.test.ts.
#include "cpu/backend.h"

#include <cstring>
#include <random>

#include "core/engine.h"
#include "core/image.h"
#include "storm.h"

using namespace infini;
using storm::check;

namespace {

constexpr int kThreads = 3;  // of the engine, and of the crew

struct Seen {
  std::atomic<int64_t> outcomes{0}, errors{0}, aborts{0}, steps{0}, now{0}, snapshots{0};
};

// Engines live for ever: what threads keep for their next call counts in its ledger.
Engine& make_engine(int threads) {
  auto ledger = std::make_unique<Ledger>();
  auto backend = std::make_unique<cpu::CpuBackend>(*ledger, threads);
  return *new Engine(std::move(ledger), std::move(backend));
}

void read_image(const Stream& stream, void* data) {
  for (int64_t part = 0; part < stream.image_parts(); ++part) stream.read_image_part(part, data);
}

// One call's numbers. They live until the round is over.
struct Given {
  CallKind kind;
  int64_t tokens = 1;
  std::vector<int> streams;  // whose call it is
  std::vector<uint32_t> query, key, value, output;  // of 4 bytes an element, whatever the type takes
  std::shared_ptr<Call> call;                       // null: done on the calling thread
  bool done = false;

  Tensors tensors() {
    Tensors tensors;
    tensors.tokens = tokens;
    tensors.query = query.data();
    tensors.key = kind == CallKind::Retrieve ? nullptr : key.data();
    tensors.value = kind == CallKind::Retrieve ? nullptr : value.data();
    tensors.output = output.data();
    return tensors;
  }
};

struct User {
  std::mt19937 random;
  Engine& engine;
  Engine& alone;  // does it again
  Seen& seen;

  int roll(int sides) { return int(random() % uint32_t(sides)); }

  StreamConfig config() {
    RawConfig raw;
    raw.kv_heads = 1 + roll(3);
    raw.heads = *raw.kv_heads * (1 + roll(2));
    raw.head_dim = 2 * (1 + roll(12));
    raw.value_dim = 1 + roll(24);
    raw.segment_length = 1 + roll(70);
    raw.rule = roll(2) ? "delta" : "linear";
    raw.dtype = roll(3) ? (roll(2) ? "bfloat16" : "float16") : "float32";
    if (roll(3) == 0) raw.rope_theta = 1e4;
    return StreamConfig::resolve(raw);
  }

  // Elements from -2 to 2; now and then one that is not finite, of which the call fails.
  std::vector<uint32_t> numbers(const StreamConfig& config, int64_t count, bool spoiled) {
    std::vector<uint32_t> words(size_t(count) + 1);
    for (int64_t i = 0; i < count; ++i) {
      const float x = float(random() % 4001) / 1000.0f - 2.0f;
      if (config.dtype == DType::Float32) {
        std::memcpy(&words[size_t(i)], &x, 4);
      } else {
        // The upper bits of a float32 as bfloat16; as float16 they are other numbers, but finite ones below 4.
        uint32_t bits;
        std::memcpy(&bits, &x, 4);
        const uint16_t half = uint16_t(bits >> 16);
        const uint16_t kept = config.dtype == DType::BFloat16 ? half : uint16_t(half & 0xc3ff);
        reinterpret_cast<uint16_t*>(words.data())[i] = kept;
      }
    }
    if (spoiled) {
      const int64_t at = roll(int(count));
      if (config.dtype == DType::Float32) {
        words[size_t(at)] = 0x7f800000;
      } else {
        reinterpret_cast<uint16_t*>(words.data())[at] = config.dtype == DType::BFloat16 ? 0x7f80 : 0x7c00;
      }
    }
    return words;
  }

  std::unique_ptr<Given> make(const StreamConfig& config, CallKind kind, int64_t tokens, std::vector<int> streams) {
    auto given = std::make_unique<Given>();
    given->kind = kind;
    given->tokens = tokens;
    given->streams = std::move(streams);
    if (kind == CallKind::Snapshot) {
      given->output.resize(Image::bytes(config, config.segment_length - 1) / 4 + 2);
      return given;
    }
    given->query = numbers(config, tokens * config.query_width(), roll(15) == 0);
    given->key = numbers(config, tokens * config.key_width(), roll(30) == 0);
    given->value = numbers(config, tokens * config.value_width(), false);
    given->output.resize(size_t(tokens * config.output_width()) + 1);
    return given;
  }

  void round() {
    constexpr int kStreams = 4;
    const StreamConfig config = this->config();
    std::vector<std::shared_ptr<Stream>> streams;
    for (int i = 0; i < kStreams; ++i) streams.push_back(engine.create_stream(config));
    auto batch = std::make_shared<Batch>(engine.backend(), streams);
    const auto limit = std::make_shared<ThreadLimit>(ThreadLimit{1 + roll(kThreads)});
    std::vector<std::unique_ptr<Given>> given;
    std::atomic<int> unsettled{0};
    auto settle = [&] { storm::wait_until([&] { return unsettled == 0; }, "calls do not settle"); };
    for (int i = 0; i < 30; ++i) {
      const int kind = roll(10), stream = roll(kStreams);
      if (kind == 0) {  // on this thread: nothing of these streams may be pending
        settle();
        auto& one = *given.emplace_back(make(config, CallKind::Attend, 1 + roll(90), {stream}));
        try {
          streams[size_t(stream)]->run_now(one.kind, one.tensors(), kThreads);
          one.done = true;
        } catch (const Error&) {
          ++seen.errors;
        }
        ++seen.now;
        continue;
      }
      if (kind < 3) {
        given.push_back(make(config, CallKind::Step, kStreams, {0, 1, 2, 3}));
        ++seen.steps;
      } else if (kind < 4) {
        given.push_back(make(config, CallKind::Snapshot, 0, {stream}));
      } else {
        given.push_back(make(config, kind < 5 ? CallKind::Retrieve : CallKind::Attend, 1 + roll(200), {stream}));
      }
      Given& one = *given.back();
      one.call = std::make_shared<Call>();
      Call& call = *one.call;
      call.kind = one.kind;
      call.limit = limit;
      call.tensors = one.tensors();
      call.output_bytes = one.output.size() * sizeof(uint32_t);
      if (one.kind == CallKind::Step) {
        call.batch = batch;
      } else {
        call.stream = streams[size_t(stream)];
      }
      ++unsettled;
      call.done = [this, &unsettled, &one](std::shared_ptr<Call> finished) {
        one.done = !finished->error;
        if (finished->error) ++seen.errors;
        if (finished->error && finished->error->code == ErrorCode::Abort) ++seen.aborts;
        ++seen.outcomes;
        --unsettled;
      };
      engine.submit({one.call});
      if (roll(6) == 0) engine.cancel(std::vector{one.call}, Error(ErrorCode::Abort, "aborted"));
      if (roll(40) == 0) engine.cancel_all(*streams[size_t(stream)], Error(ErrorCode::Abort, "aborted"));
    }
    settle();
    repeat(config, streams, given);
  }

  // By one thread, token counts of calls unchanged; the engine's streams must have come to the same.
  void repeat(const StreamConfig& config, const std::vector<std::shared_ptr<Stream>>& streams,
              const std::vector<std::unique_ptr<Given>>& given) {
    std::vector<std::shared_ptr<Stream>> twins;
    for (size_t i = 0; i < streams.size(); ++i) twins.push_back(alone.create_stream(config));
    const size_t element = config.element_bytes();
    for (const auto& one : given) {
      if (!one->done) continue;
      const std::vector<uint32_t> found = one->output;
      if (one->kind == CallKind::Snapshot) {
        Stream& twin = *twins[size_t(one->streams[0])];
        check(one->call->tokens_after == twin.tokens(), "a snapshot is of another moment");
        read_image(twin, one->output.data());
        const size_t bytes = Image::bytes(config, twin.position().open);
        check(bytes == one->call->output_bytes, "a snapshot has another length");
        check(std::memcmp(found.data(), one->output.data(), bytes) == 0, "a snapshot holds other bits");
        ++seen.snapshots;
        continue;
      }
      const size_t bytes = size_t(one->tokens * config.output_width()) * element;
      std::memset(one->output.data(), 0x55, bytes);
      if (one->kind == CallKind::Step) {
        Batch(alone.backend(), twins).run_now(one->tensors(), 1);
      } else {
        twins[size_t(one->streams[0])]->run_now(one->kind, one->tensors(), 1);
      }
      check(std::memcmp(found.data(), one->output.data(), bytes) == 0, "a result has other bits than that of one thread");
    }
    for (size_t i = 0; i < streams.size(); ++i) {
      check(streams[i]->tokens() == twins[i]->tokens(), "a stream has other tokens than its twin");
      std::vector<double> a(Image::bytes(config, config.segment_length) / 8 + 1), b(a.size());
      read_image(*streams[i], a.data());
      read_image(*twins[i], b.data());
      check(a == b, "a stream is in another state than its twin");
    }
  }
};

}  // namespace

int main(int count, char** arguments) {
  const auto [first_seed, rounds] = storm::read_arguments(count, arguments);
  Seen& seen = *new Seen;
  Engine &engine = make_engine(kThreads), &alone = make_engine(1);
  storm::run_users(first_seed, [&, rounds = rounds](uint32_t seed) {
    User user{std::mt19937(seed), engine, alone, seen};
    for (int round = 0; round < rounds; ++round) user.round();
  });
  check(seen.aborts > 0 && seen.errors > seen.aborts && seen.outcomes > 2 * seen.errors, "the storm was no storm");
  check(seen.steps > 0 && seen.now > 0 && seen.snapshots > 0, "some calls were spared");
  std::printf("ok: %ld outcomes, %ld errors, %ld aborts, %ld steps, %ld on the calling thread, %ld snapshots\n",
              long(seen.outcomes), long(seen.errors), long(seen.aborts), long(seen.steps), long(seen.now),
              long(seen.snapshots));
  storm::end();
}
