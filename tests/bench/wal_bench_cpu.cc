// Processor time of one record on the writing side: payload CRC, frame and chain, hand-over through a queue, and what
// Append does with the group. Time in the kernel (write and sync) is told apart: it belongs to the disk, not to the
// log.

#include <deque>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/mutex.h"
#include "tests/bench/wal_bench_machine.h"
#include "tests/bench/wal_bench_report.h"
#include "tests/bench/wal_bench_spool.h"

namespace towline::bench {
namespace {

constexpr size_t kPayloadBytes = 256;
constexpr uint64_t kGroupSizes[] = {64 << 10, 1 << 20};
constexpr double kTargetMicros = 0.5;

// A record on its way. The queue itself is above the log's layer; this one has its form: one mutex, a deque of owned
// jobs, all of them taken at once.
struct Job {
  std::string payload;
  uint32_t crc = 0;
};

class JobQueue {
 public:
  void Push(std::unique_ptr<Job> job) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    jobs_.push_back(std::move(job));
  }
  void TakeAll(std::vector<std::unique_ptr<Job>>* jobs) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    for (auto& job : jobs_) jobs->push_back(std::move(job));
    jobs_.clear();
  }

 private:
  Mutex mutex_;
  std::deque<std::unique_ptr<Job>> jobs_ TOWLINE_GUARDED_BY(mutex_);
};

// Nanoseconds of processor time.
struct Spent {
  int64_t crc = 0;
  int64_t queue = 0;
  int64_t encode = 0;
  int64_t append = 0;
  uint64_t records = 0;
};

class CpuBench {
 public:
  CpuBench(const Settings& settings, Report* report)
      : settings_(settings),
        report_(*report),
        timed_fs_(*PosixFileSystem()),
        spool_(JoinPath(settings.directory, "cpu"), Options(settings), &timed_fs_) {}

  absl::Status Run();

 private:
  static wal::SpoolOptions Options(const Settings& settings) {
    wal::SpoolOptions options;
    options.segment_bytes = settings.Pick<uint64_t>(4 << 20, 64 << 20, 64 << 20);
    return options;
  }

  uint64_t Rounds() const { return settings_.Pick<uint64_t>(1, 5, 9); }
  uint64_t RoundBytes() const { return settings_.Pick<uint64_t>(4 << 20, 128 << 20, 128 << 20); }
  absl::Status Measure(uint64_t group_bytes);
  absl::Status AppendGroup(size_t records, Spent* spent);

  const Settings& settings_;
  Report& report_;
  TimedFileSystem timed_fs_;
  BenchSpool spool_;
  JobQueue queue_;
};

absl::Status CpuBench::Run() {
  TOWLINE_RETURN_IF_ERROR(spool_.OpenWithSpares(std::size(kGroupSizes) * Rounds() * RoundBytes()));
  for (const uint64_t group_bytes : kGroupSizes) TOWLINE_RETURN_IF_ERROR(Measure(group_bytes));
  return absl::OkStatus();
}

absl::Status CpuBench::AppendGroup(size_t records, Spent* spent) {
  std::vector<std::unique_ptr<Job>> jobs;
  jobs.reserve(records);
  for (size_t i = 0; i < records; ++i) {
    jobs.push_back(std::make_unique<Job>(Job{std::string(kPayloadBytes, static_cast<char>('a' + i % 26)), 0}));
  }
  int64_t start = ThreadNanos();
  for (const auto& job : jobs) job->crc = Crc32c(job->payload);
  spent->crc += ThreadNanos() - start;

  start = ThreadNanos();
  for (auto& job : jobs) queue_.Push(std::move(job));
  jobs.clear();
  queue_.TakeAll(&jobs);
  spent->queue += ThreadNanos() - start;

  start = ThreadNanos();
  wal::GroupBuilder builder(spool_->end());
  for (const auto& job : jobs) builder.Add(wal::RecordType::kBatch, 1, 1, job->payload, job->crc);
  const std::shared_ptr<wal::FrameGroup> group = builder.Finish();
  spent->encode += ThreadNanos() - start;

  start = ThreadNanos();
  TOWLINE_RETURN_IF_ERROR(spool_->Append(group));
  spent->append += ThreadNanos() - start;
  spent->records += records;
  return absl::OkStatus();
}

absl::Status CpuBench::Measure(uint64_t group_bytes) {
  const size_t records = group_bytes / wal::FrameSize(kPayloadBytes);
  const size_t groups = RoundBytes() / group_bytes;
  std::vector<double> totals;
  std::vector<double> crc, queue, encode, append, write, sync;
  const ThreadUsage usage_before = Usage();
  double all_records = 0;
  for (uint64_t round = 0; round < Rounds(); ++round) {
    Spent spent;
    const CallTimes before = timed_fs_.times();
    for (size_t i = 0; i < groups; ++i) TOWLINE_RETURN_IF_ERROR(AppendGroup(records, &spent));
    const CallTimes& after = timed_fs_.times();
    const double count = static_cast<double>(spent.records);
    all_records += count;
    write.push_back(static_cast<double>(after.write_cpu - before.write_cpu) / count);
    sync.push_back(static_cast<double>(after.sync_cpu - before.sync_cpu) / count);
    crc.push_back(static_cast<double>(spent.crc) / count);
    queue.push_back(static_cast<double>(spent.queue) / count);
    encode.push_back(static_cast<double>(spent.encode) / count);
    append.push_back(static_cast<double>(spent.append) / count - write.back() - sync.back());
    totals.push_back((crc.back() + queue.back() + encode.back() + append.back()) / 1e3);
  }
  const ThreadUsage usage = Usage();
  Figure figure;
  figure.name = absl::StrCat(group_bytes >> 10, " KiB groups: frame, CRC, chain, queue");
  figure.value = Median(totals);
  figure.unit = "us/record";
  figure.target = Target::AtMost(kTargetMicros);
  figure.spread = Spread(totals);
  figure.limit = "processor: memory allocated and copied per group";
  figure.details = {
      {"CRC ns", Median(crc)},
      {"queue ns", Median(queue)},
      {"encode+chain ns", Median(encode)},
      {"append ns", Median(append)},
      {"kernel write ns", Median(write)},
      {"kernel sync ns", Median(sync)},
      // Of everything here, the making of payloads too, by the kernel's own count.
      {"getrusage user ns", (usage.user_us - usage_before.user_us) * 1e3 / all_records},
      {"getrusage system ns", (usage.system_us - usage_before.system_us) * 1e3 / all_records},
  };
  report_.Add(std::move(figure));
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureCpu(const Settings& settings, Report* report) { return CpuBench(settings, report).Run(); }

}  // namespace towline::bench
