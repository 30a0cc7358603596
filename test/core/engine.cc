// The engine under a storm of calls, batches, cancellations and failures from several threads, on two made-up
// devices: one that runs units on many threads, one that gathers. Compiled with -fsanitize=thread by core.test.ts.
#include "core/engine.h"

#include <random>

#include "storm.h"

using namespace infini;
using storm::check;

namespace {

struct Seen {
  std::atomic<int64_t> launches{0}, works{0}, most_together{0}, refused{0}, forwards{0}, forwarded{0}, outcomes{0}, errors{0}, aborts{0};
};

// What a stream of the made-up device is: a number that every commit adds to, touched by one call at a time.
struct FakeState final : StreamState {
  int64_t sum = 0;
  std::atomic<int> users{0};
  std::unique_ptr<Work> attend(const Tensors&, const Pieces&, bool) override;
  std::unique_ptr<Work> retrieve(const Tensors&, bool) override;
  void read_memory(float*, double*) const override {}
  void read_segment(int64_t, int64_t, void*, void*) const override {}
  void write(const float*, const double*, int64_t, const void*, const void*) override {}
  void reset() override { sum = 0; }
  std::unique_ptr<StreamState> fork() const override { return std::make_unique<FakeState>(); }
  int64_t byte_length() const override { return 64; }
};

// tensors.query points to a number that says how many stages and units it has, and where it fails.
class FakeWork final : public Work {
 public:
  FakeWork(std::vector<FakeState*> states, const Tensors& tensors)
      : states_(std::move(states)), order_(*static_cast<const int64_t*>(tensors.query)) {
    for (FakeState* state : states_) check(++state->users == 1, "two calls are at work on one stream");
    if (order_ % 50 == 49) {
      for (FakeState* state : states_) --state->users;
      throw std::bad_alloc();
    }
  }
  ~FakeWork() override {
    check(!launched, "a launched work was destroyed before it was waited for");
    for (FakeState* state : states_) --state->users;
  }
  int next_stage() override {
    check(!launched && running_ == 0, "a stage began while another was under way");
    if (stage_ == 1 + order_ % 4) {
      if (order_ % 11 == 10) throw Error::non_finite(Site::Key, 0);
      return 0;
    }
    ++stage_;
    return gathers ? 1 : 1 + int(order_ % 3);
  }
  void run(int) override {
    if (gathers) check(launched, "a stage was waited for that was not launched");
    ++running_;
    if (order_ % 7 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
    if (gathers) launched = false;
    --running_;
    if (order_ % 23 == 22) throw Error(ErrorCode::Device, "a unit failed");
  }
  void commit() noexcept override {
    for (FakeState* state : states_) ++state->sum;
  }
  bool gathers = false, launched = false;

 private:
  std::vector<FakeState*> states_;
  const int64_t order_;
  int64_t stage_ = 0;
  std::atomic<int> running_{0};
};

bool fake_gathers = false;

std::unique_ptr<Work> make_work(std::vector<FakeState*> states, const Tensors& tensors) {
  auto work = std::make_unique<FakeWork>(std::move(states), tensors);
  work->gathers = fake_gathers;
  return work;
}
std::unique_ptr<Work> FakeState::attend(const Tensors& tensors, const Pieces&, bool) { return make_work({this}, tensors); }
std::unique_ptr<Work> FakeState::retrieve(const Tensors& tensors, bool) { return make_work({this}, tensors); }

struct FakeBatch final : BatchState {
  std::vector<FakeState*> states;
  std::unique_ptr<Work> step(const Tensors& packed, const std::vector<Position>& positions) override {
    check(positions.size() == states.size(), "a step without its positions");
    return make_work(states, packed);
  }
};

// A model of two layers. The orders of a chunk's works are the tokens after one another, each another failure or none.
struct FakeRun final : DenseRun {
  explicit FakeRun(const Chunk& chunk) : orders(chunk.tokens.begin(), chunk.tokens.end()) {}
  Tensors tensors(int64_t, int64_t count) const override {
    Tensors tensors;
    tensors.tokens = count;
    tensors.query = &orders[size_t(at)];
    return tensors;
  }
  std::unique_ptr<Work> step(int layer) override {
    at = layer;
    return make_work({}, tensors(0, 0));
  }
  const std::vector<int64_t> orders;
  int at = 0;
};

struct FakeDense final : DenseLayers {
  std::unique_ptr<DenseRun> begin(const Chunk& chunk) override { return std::make_unique<FakeRun>(chunk); }
  int64_t byte_length() const override { return 0; }
};

constexpr int kLayers = 2;

class FakeBackend final : public Backend {
 public:
  FakeBackend(Ledger& ledger, Seen& seen) : Backend(ledger), seen_(seen) {}
  DeviceInfo info() const override { return {}; }
  int64_t stream_bytes(const StreamConfig&) const override { return 0; }
  std::unique_ptr<StreamState> create(const StreamConfig&) override { return std::make_unique<FakeState>(); }
  std::unique_ptr<BatchState> create_batch(const StreamConfig&, std::vector<StreamState*> streams) override {
    auto batch = std::make_unique<FakeBatch>();
    for (StreamState* stream : streams) batch->states.push_back(static_cast<FakeState*>(stream));
    return batch;
  }
  std::unique_ptr<DenseLayers> create_dense(const ModelConfig&, WeightSource&) override {
    return std::make_unique<FakeDense>();
  }
  bool gathers() const override { return fake_gathers; }
  void launch(Work* const* works, int count) override {
    check(count > 0, "a launch of nothing");
    if (++seen_.launches % 97 == 0) {
      ++seen_.refused;
      throw Error(ErrorCode::Device, "nothing could be launched");
    }
    seen_.works += count;
    if (count > seen_.most_together) seen_.most_together = count;
    for (int i = 0; i < count; ++i) {
      auto* work = static_cast<FakeWork*>(works[i]);
      check(!work->launched, "a work was launched twice");
      work->launched = true;
    }
  }

 private:
  Seen& seen_;
};

StreamConfig config() {
  RawConfig raw;
  raw.heads = raw.head_dim = 1;
  raw.segment_length = 3;
  return StreamConfig::resolve(raw);
}

// One JavaScript thread's part: streams and batches of its own, calls whose outcomes must come in order.
void user(Engine& engine, Seen& seen, uint32_t seed, int rounds) {
  std::mt19937 random(seed);
  auto roll = [&](int sides) { return int(random() % uint32_t(sides)); };
  const auto limit = std::make_shared<ThreadLimit>(ThreadLimit{1 + roll(4)});
  constexpr int kStreams = 5;
  const auto model = std::make_shared<Model>();
  model->config.layers = kLayers;
  model->dense = std::make_unique<FakeDense>();
  for (int round = 0; round < rounds; ++round) {
    std::vector<std::shared_ptr<Stream>> streams;
    for (int i = 0; i < kStreams; ++i) streams.push_back(engine.create_stream(config()));
    std::vector<std::shared_ptr<Batch>> batches;
    for (int i = 0; i < 3; ++i) {
      auto members = streams;
      std::shuffle(members.begin(), members.end(), random);
      members.resize(1 + roll(kStreams));
      batches.push_back(std::make_shared<Batch>(engine.backend(), members));
    }
    struct Given {
      int64_t order;
      std::vector<float> numbers = {1, 2};
      std::atomic<int> settled{0};
    };
    std::vector<std::unique_ptr<Given>> given;
    std::vector<std::shared_ptr<Call>> calls, bundle;
    std::atomic<int64_t> unsettled{0};
    std::mutex order_mutex;
    std::vector<std::vector<size_t>> settled(kStreams), made(kStreams);
    const auto memory = engine.backend().allocate_device(8);
    for (int i = 0; i < 60; ++i) {
      given.push_back(std::make_unique<Given>());
      Given& mine = *given.back();
      mine.order = int64_t(random() % 100000);
      auto call = std::make_shared<Call>();
      call->limit = limit;
      call->tensors.tokens = 1;
      call->tensors.query = &mine.order;
      std::vector<int> uses;
      const int kind = roll(12);
      if (kind < 5) {
        call->kind = kind < 4 ? CallKind::Attend : CallKind::Retrieve;
        uses = {roll(kStreams)};
        call->stream = streams[size_t(uses[0])];
      } else if (kind < 8) {
        call->kind = CallKind::Step;
        call->batch = batches[size_t(roll(3))];
        for (int s = 0; s < kStreams; ++s) {
          for (const auto& member : call->batch->streams) {
            if (member == streams[size_t(s)]) uses.push_back(s);
          }
        }
      } else if (kind < 10) {
        // One or two sessions of a stream per layer, sometimes as a step of prepared batches.
        const int sessions = 1 + roll(2);
        for (int s = 0; s < kStreams; ++s) uses.push_back(s);
        std::shuffle(uses.begin(), uses.end(), random);
        uses.resize(size_t(sessions * kLayers));
        std::vector<std::shared_ptr<Stream>> members;
        for (int use : uses) members.push_back(streams[size_t(use)]);
        std::vector<std::shared_ptr<Batch>> prepared;
        for (int layer = 0; layer < kLayers && sessions == 2 && roll(2) == 0; ++layer) {
          const size_t second = size_t(kLayers + layer);
          prepared.push_back(std::make_shared<Batch>(engine.backend(), std::vector{members[size_t(layer)], members[second]}));
        }
        if (prepared.size() < kLayers) prepared.clear();
        Chunk chunk;
        for (int layer = 0; layer <= kLayers; ++layer) chunk.tokens.push_back(int32_t(random() % 100000));
        call->kind = CallKind::Forward;
        call->forward = std::make_unique<Forward>(model, members, prepared, std::vector<int64_t>(size_t(sessions), 1), chunk);
        ++seen.forwards;
      } else {
        call->kind = CallKind::Read;
        call->source = memory;
        call->tensors.output = mine.numbers.data();
      }
      const size_t index = calls.size();
      for (int use : uses) made[size_t(use)].push_back(index);
      ++unsettled;
      call->done = [&seen, &order_mutex, &settled, &unsettled, &mine, uses, index](std::shared_ptr<Call> finished) {
        check(++mine.settled == 1, "a call settled twice");
        if (finished->error) {
          ++seen.errors;
          if (finished->error->code == ErrorCode::Abort) ++seen.aborts;
        }
        {
          std::lock_guard lock(order_mutex);
          for (int use : uses) settled[size_t(use)].push_back(index);
        }
        if (finished->forward && !finished->error) ++seen.forwarded;
        ++seen.outcomes;
        --unsettled;
      };
      calls.push_back(call);
      bundle.push_back(call);
      if (roll(3) > 0) {
        engine.submit(bundle);
        bundle.clear();
      }
      if (!bundle.empty()) continue;
      const Error abort(ErrorCode::Abort, "aborted");
      if (roll(6) == 0) engine.cancel(std::vector{calls[size_t(roll(int(calls.size())))], calls.front(), calls.back()}, abort);
      if (roll(25) == 0) engine.cancel_all(*streams[size_t(roll(kStreams))], abort);
      if (roll(25) == 0) engine.cancel_all(*batches[size_t(roll(3))], abort);
      if (roll(20) == 0) std::this_thread::sleep_for(std::chrono::microseconds(roll(300)));
    }
    engine.submit(bundle);
    storm::wait_until([&] { return unsettled == 0; }, "calls do not settle");
    // The engine lets go of a call a moment after it has settled.
    for (auto& batch : batches) batch.reset();
    for (size_t i = 0; i < calls.size(); ++i) {
      check(given[i]->settled == 1, "a call never settled");
      if (calls[i]->kind == CallKind::Read && !calls[i]->error) check(given[i]->numbers[0] == 0, "a read read nothing");
    }
    for (int s = 0; s < kStreams; ++s) {
      int64_t attended = 0;
      size_t last = 0;
      for (const size_t index : settled[size_t(s)]) {
        const Call& call = *calls[index];
        if (!call.error || call.error->code != ErrorCode::Abort) {
          check(index >= last, "calls of one stream settled out of order");
          last = index;
        }
        if (!call.error && call.kind != CallKind::Retrieve) ++attended;
        if (!call.error && call.kind == CallKind::Attend) check(call.tokens_after == attended, "tokens were miscounted");
      }
      check(settled[size_t(s)].size() == made[size_t(s)].size(), "a stream lost a call");
      check(streams[size_t(s)]->tokens() == attended, "a stream's tokens are not those of its calls");
    }
  }
}

void run(bool gathers, uint32_t first_seed, int rounds) {
  fake_gathers = gathers;
  static std::vector<Seen*> kept;  // engines live for ever
  Seen& seen = *kept.emplace_back(new Seen);
  auto ledger = std::make_unique<Ledger>();
  auto backend = std::make_unique<FakeBackend>(*ledger, seen);
  Engine& engine = *new Engine(std::move(ledger), std::move(backend));
  storm::run_users(first_seed, [&](uint32_t seed) { user(engine, seen, seed, rounds); });
  storm::wait_until([&] { return engine.ledger().streams == 0; }, "streams are kept");
  check(engine.ledger().pending_calls == 0, "pending calls are miscounted");
  check(engine.ledger().tensor_bytes == 0, "tensors are kept");
  check(seen.aborts > 0 && seen.errors > seen.aborts && seen.outcomes > seen.errors, "the storm was no storm");
  check(seen.forwarded > 0 && seen.forwarded < seen.forwards, "models were spared");
  if (gathers) check(seen.most_together > 3 && seen.refused > 0, "nothing was gathered");
  std::printf("ok %s: %ld outcomes, %ld errors, %ld aborts, %ld launches of at most %ld\n", gathers ? "gathering" : "units",
              long(seen.outcomes), long(seen.errors), long(seen.aborts), long(seen.launches), long(seen.most_together));
}

}  // namespace

int main(int count, char** arguments) {
  const auto [seed, rounds] = storm::read_arguments(count, arguments);
  run(false, seed, rounds);
  run(true, seed, rounds);
  storm::end();
}
