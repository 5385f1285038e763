#include "ctl/bench_library.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/mutex.h"
#include "ctl/bench_schedule.h"
#include "towline/write_batcher.h"

namespace towline::ctl {
namespace {

using TimePoint = Schedule::Clock::time_point;

// A server that fails every call would be asked in a tight loop.
constexpr uint64_t kErrorsMax = 1000;

// One thread.
class Caller {
 public:
  Caller(const LoadOptions& options, const LibraryLoad& load, const Schedule& schedule, Client& client, uint64_t seed)
      : options_(options),
        load_(load),
        schedule_(schedule),
        client_(client),
        keys_(seed, options.key_space),
        value_(BenchValue(load.value_bytes)) {}

  void Run() {
    if (load_.mode == LibraryMode::kBatcher) {
      Stream();
    } else {
      Call();
    }
  }

  const LoadResult& result() const { return result_; }

 private:
  bool GoesOn(TimePoint now) {
    // Not before every call: it is a system call.
    if (++looks_ % 16 == 0 && options_.interrupt->triggered()) result_.interrupted = true;
    return now < schedule_.end && !result_.interrupted && result_.errors < kErrorsMax;
  }

  void Count(TimePoint start, TimePoint now) {
    if (!schedule_.Measured(now)) return;
    ++result_.calls;
    ++result_.records;
    result_.latency_ns.Add(static_cast<uint64_t>((now - start).count()));
  }

  void Call() {
    for (TimePoint start = Schedule::Clock::now(); GoesOn(start); start = Schedule::Clock::now()) {
      const std::string key = BenchKey(keys_.Next());
      const absl::Status status =
          load_.mode == LibraryMode::kGet ? client_.Get(key).status() : client_.Put(key, value_).status();
      const TimePoint now = Schedule::Clock::now();
      if (status.ok()) {
        Count(start, now);
      } else {
        CountError(status, result_);
      }
    }
  }

  void Stream() {
    WriteSet one;
    one.Put(BenchKey(0), value_);
    BatcherOptions options;
    options.batch_records = static_cast<size_t>(options_.batch);
    options.window_bytes =
        static_cast<size_t>(options_.in_flight) * options.batch_records * one.request().ByteSizeLong();
    const std::unique_ptr<WriteBatcher> batcher =
        client_.NewBatcher(options, [this](const RecordAnswer& answer) { OnAnswer(answer); });
    absl::Status status;
    for (TimePoint start = Schedule::Clock::now(); status.ok() && GoesOnLocked(start); start = Schedule::Clock::now()) {
      {
        MutexLock lock(&mutex_);
        unanswered_.push_back(start);
      }
      WriteSet writes;
      writes.Put(BenchKey(keys_.Next()), value_);
      status = batcher->Add(std::move(writes)).status();
    }
    const absl::Status closed = batcher->Close();
    if (status.ok()) status = closed;
    MutexLock lock(&mutex_);
    if (!status.ok()) CountError(status, result_);
  }

  bool GoesOnLocked(TimePoint now) {
    MutexLock lock(&mutex_);
    return GoesOn(now);
  }

  // On the batcher's thread, in the order of the records.
  void OnAnswer(const RecordAnswer& answer) {
    MutexLock lock(&mutex_);
    const TimePoint start = unanswered_.front();
    unanswered_.pop_front();
    if (answer.status.ok()) {
      Count(start, Schedule::Clock::now());
    } else {
      CountError(answer.status, result_);
    }
  }

  const LoadOptions& options_;
  const LibraryLoad& load_;
  const Schedule& schedule_;
  Client& client_;
  KeyChoice keys_;
  const std::string value_;
  uint32_t looks_ = 0;

  // For streams, whose answers come on another thread until the batcher is closed.
  Mutex mutex_;
  std::deque<TimePoint> unanswered_;
  LoadResult result_;
};

}  // namespace

absl::StatusOr<LoadResult> RunLibraryLoad(const LoadOptions& options, const LibraryLoad& load) {
  const int callers = load.mode == LibraryMode::kBatcher ? options.streams : options.in_flight;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < std::max(1, std::min(options.threads, callers)); ++i) {
    TOWLINE_ASSIGN_OR_RETURN(clients.emplace_back(), Client::Make(load.client));
  }
  const Schedule schedule(options);
  std::vector<std::unique_ptr<Caller>> all;
  std::vector<std::thread> running;
  for (int i = 0; i < callers; ++i) {
    Client& client = *clients[static_cast<size_t>(i) % clients.size()];
    all.push_back(
        std::make_unique<Caller>(options, load, schedule, client, 0x2545f4914f6cdd1du * static_cast<uint64_t>(i + 1)));
    running.emplace_back([caller = all.back().get()] { caller->Run(); });
  }
  LoadResult result = AwaitEnd(schedule, *options.interrupt);
  for (std::thread& thread : running) thread.join();
  for (const std::unique_ptr<Caller>& caller : all) AddPart(caller->result(), &result);
  return result;
}

}  // namespace towline::ctl
