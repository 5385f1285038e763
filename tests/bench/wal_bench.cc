// Measures the spool beside the disk that it stands on.
//
//   towline_wal_bench [DIRECTORY]     default: towline_wal_bench.tmp in the working directory, removed at the end
//
// Appends alternate with plain pwrite + fdatasync of the same size on a zero-filled file of the same directory, so that
// both see the same disk; the ratio of the medians is what counts.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "common/checksum.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/rng.h"
#include "wal/frame.h"
#include "wal/local_frame.h"
#include "wal/spool.h"

namespace towline::wal {
namespace {

constexpr uint64_t kSegmentBytes = 64 << 20;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "towline_wal_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

template <typename T>
T Value(absl::StatusOr<T> result) {
  Check(result.status());
  return *std::move(result);
}

int64_t Now() { return SystemClock()->MonotonicMicros(); }

// Processor time of this thread in nanoseconds: what a busy neighbour does not disturb.
int64_t ThreadNanos() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

double Median(std::vector<int64_t> micros) {
  std::nth_element(micros.begin(), micros.begin() + static_cast<ptrdiff_t>(micros.size() / 2), micros.end());
  return static_cast<double>(micros[micros.size() / 2]);
}

// A spool in DIRECTORY/wal.
class Bench {
 public:
  explicit Bench(std::string directory) : directory_(std::move(directory)), executor_(NewThreadExecutor()) {
    Check(RemoveAll(fs_, directory_));
    Check(fs_.CreateDirectory(directory_));
  }
  ~Bench() {
    spool_.reset();
    RemoveAll(fs_, directory_).IgnoreError();
  }

  void Open() {
    spool_.reset();
    SpoolEnvironment env{fs_, *SystemClock(), *SystemRng(), *executor_, *NullLogger()};
    SpoolOptions options;
    options.segment_bytes = kSegmentBytes;
    RecoveryInputs inputs;
    inputs.cluster_id = std::string(kClusterIdSize, 'b');
    inputs.first_retained = first_retained_;
    spool_ = Value(
        OpenSpool(env, JoinPath(directory_, "wal"), JoinPath(directory_, "quarantine"), options, inputs, &report_));
  }

  // Until the loop of the spool has nothing to do.
  void WaitForSpares() {
    uint64_t spares = 0;
    while (spares < 2) {
      spares = 0;
      for (const std::string& name : Value(fs_.List(JoinPath(directory_, "wal")))) {
        spares += name.rfind("spare-", 0) == 0 ? 1 : 0;
      }
    }
  }

  // A group of `group_bytes` of records with payloads of `payload_bytes`.
  std::shared_ptr<FrameGroup> MakeGroup(uint64_t group_bytes, size_t payload_bytes) {
    GroupBuilder builder(spool_->end());
    const std::string payload(payload_bytes, 'p');
    const uint32_t crc = Crc32c(payload);
    do {
      builder.Add(RecordType::kBatch, 1, SystemClock()->WallMicros(), payload, crc);
    } while (builder.bytes() + FrameSize(payload_bytes) <= group_bytes);
    return builder.Finish();
  }

  void Prune() {
    Value(spool_->Prune(spool_->end().lsn, 2 * kSegmentBytes, [this](Lsn lsn) {
      first_retained_ = lsn;
      return absl::OkStatus();
    }));
  }

  void MeasureEncode();
  void MeasureAppend();
  void MeasureRead();
  void MeasureOpen();

 private:
  FileSystem& fs_ = *PosixFileSystem();
  const std::string directory_;
  std::unique_ptr<Executor> executor_;
  RecoveryReport report_;
  Lsn first_retained_ = 0;
  std::unique_ptr<Spool> spool_;
};

void Bench::MeasureEncode() {
  std::printf("encode: payload CRC, header, copy, chain; of it the local part (header CRC); processor time\n");
  std::printf("%10s %14s %14s %14s\n", "payload", "ns/record", "local ns", "MB/s");
  for (const size_t size : {size_t{100}, size_t{256}, size_t{1024}, size_t{16384}}) {
    const std::string payload(size, 'p');
    const uint64_t records = std::min<uint64_t>(4000000, (1ull << 30) / size);
    const int64_t start = ThreadNanos();
    int64_t local = 0;
    GroupBuilder builder{LogEnd()};
    std::deque<std::shared_ptr<FrameGroup>> tail;  // as much as a spool keeps, so that memory is used again
    for (uint64_t i = 0; i < records; ++i) {
      builder.Add(RecordType::kBatch, 1, 1, payload, Crc32c(payload));
      if (builder.bytes() < 256 << 10 && i + 1 < records) continue;
      const std::shared_ptr<FrameGroup> group = builder.Finish();
      const int64_t before = ThreadNanos();
      for (const FrameGroup::Ref& ref : group->frames) FillLocalPart(i, 7, group->bytes.data() + ref.offset);
      local += ThreadNanos() - before;
      tail.push_back(group);
      if (tail.size() > 64) tail.pop_front();
    }
    const double nanos = static_cast<double>(ThreadNanos() - start);
    const double count = static_cast<double>(records);
    std::printf("%10zu %14.1f %14.1f %14.0f\n", size, nanos / count, static_cast<double>(local) / count,
                count * static_cast<double>(size) / nanos * 1e3);
  }
}

void Bench::MeasureAppend() {
  std::printf("\nappend: spool against plain pwrite + fdatasync, alternating; median microseconds\n");
  std::printf("%10s %8s %10s %10s %8s %12s\n", "group", "times", "spool", "plain", "ratio", "spool MB/s");
  const std::string path = JoinPath(directory_, "plain");
  const std::unique_ptr<File> plain = Value(fs_.Open(path, OpenMode::kCreate));
  for (uint64_t offset = 0; offset < kSegmentBytes; offset += 1 << 20) {
    Check(plain->WriteAt(offset, std::string(1 << 20, '\0')));
  }
  Check(plain->SyncData());
  WaitForSpares();
  uint64_t offset = 0;
  for (const uint64_t size : {4ull << 10, 16ull << 10, 64ull << 10, 256ull << 10, 1ull << 20}) {
    std::vector<int64_t> spool_micros;
    std::vector<int64_t> plain_micros;
    const int times = size >= 256 << 10 ? 300 : 1500;
    for (int i = 0; i < times; ++i) {
      const std::shared_ptr<FrameGroup> group = MakeGroup(size, 200);
      const uint64_t segments = spool_->stats().segments;
      int64_t start = Now();
      Check(spool_->Append(group));
      spool_micros.push_back(Now() - start);
      if (offset + group->bytes.size() > kSegmentBytes) offset = 0;
      start = Now();
      Check(plain->WriteAt(offset, group->bytes));
      Check(plain->SyncData());
      plain_micros.push_back(Now() - start);
      offset += group->bytes.size();
      if (spool_->stats().segments != segments) Prune();
    }
    const double spool = Median(spool_micros);
    const double ours = Median(plain_micros);
    std::printf("%10llu %8d %10.0f %10.0f %8.2f %12.0f\n", static_cast<unsigned long long>(size), times, spool, ours,
                spool / ours, static_cast<double>(size) / spool);
  }
}

void Bench::MeasureRead() {
  // Four segments, of which the tail cache holds a little.
  const Lsn first = spool_->end().lsn + 1;
  while (spool_->BytesBehind(first - 1) < 4 * kSegmentBytes) Check(spool_->Append(MakeGroup(1 << 20, 256)));
  const Lsn last = spool_->end().lsn;
  Open();
  std::printf("\nread: cursor from disk (page cache), 256-byte payloads\n");
  for (const size_t max_bytes : {size_t{64} << 10, size_t{256} << 10, size_t{1} << 20}) {
    const std::unique_ptr<Cursor> cursor = Value(spool_->NewCursor(first));
    uint64_t bytes = 0;
    const int64_t start = Now();
    while (cursor->next_lsn() <= last) bytes += Value(cursor->Next(max_bytes)).bytes.size();
    const double micros = static_cast<double>(Now() - start);
    std::printf("%10zu bytes a batch: %8.0f MB/s %8.2f M records/s\n", max_bytes, static_cast<double>(bytes) / micros,
                static_cast<double>(last - first + 1) / micros);
  }
  std::vector<int64_t> seeks;
  for (int i = 0; i < 2000; ++i) {
    const Lsn lsn = first + SystemRng()->Next() % (last - first);
    const int64_t start = Now();
    Value(spool_->EndAt(lsn));
    seeks.push_back(Now() - start);
  }
  std::printf("seek to a random LSN of %llu: median %.0f us, highest %lld us\n",
              static_cast<unsigned long long>(last - first + 1), Median(seeks),
              static_cast<long long>(*std::max_element(seeks.begin(), seeks.end())));
}

void Bench::MeasureOpen() {
  spool_.reset();
  std::vector<int64_t> opens;
  for (int i = 0; i < 5; ++i) {
    const int64_t start = Now();
    Open();
    opens.push_back(Now() - start);
  }
  std::printf("\nopen: %llu segments, newest read whole: median %.1f ms, row %s\n",
              static_cast<unsigned long long>(report_.segments), Median(opens) / 1e3, report_.row.c_str());
}

}  // namespace
}  // namespace towline::wal

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  towline::wal::Bench bench(argc > 1 ? argv[1] : "towline_wal_bench.tmp");
  bench.MeasureEncode();
  bench.Open();
  bench.MeasureAppend();
  bench.MeasureRead();
  bench.MeasureOpen();
  return 0;
}
