#include "tests/bench/wal_bench_machine.h"

#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline::bench {
namespace {

int64_t Nanos(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

double Micros(const timeval& time) {
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
}

// A descriptor for reading, closed at the end.
class TimedFile : public File {
 public:
  TimedFile(std::unique_ptr<File> base, std::thread::id owner, const std::atomic<bool>& enabled, CallTimes* times)
      : base_(std::move(base)), owner_(owner), enabled_(enabled), times_(*times) {}

  absl::StatusOr<size_t> ReadAt(uint64_t offset, size_t size, char* buffer) override {
    return base_->ReadAt(offset, size, buffer);
  }
  absl::Status WritePieces(uint64_t offset, absl::Span<const absl::string_view> pieces) override {
    if (!Counts()) return base_->WritePieces(offset, pieces);
    const int64_t wall = NowNanos();
    const int64_t cpu = ThreadNanos();
    absl::Status status = base_->WritePieces(offset, pieces);
    times_.write_cpu += ThreadNanos() - cpu;
    times_.write_wall += NowNanos() - wall;
    return status;
  }
  absl::Status SyncData() override {
    if (!Counts()) return base_->SyncData();
    const int64_t wall = NowNanos();
    const int64_t cpu = ThreadNanos();
    absl::Status status = base_->SyncData();
    times_.sync_cpu += ThreadNanos() - cpu;
    times_.sync_wall += NowNanos() - wall;
    return status;
  }
  absl::StatusOr<uint64_t> Size() override { return base_->Size(); }
  absl::Status Truncate(uint64_t size) override { return base_->Truncate(size); }
  absl::Status Lock() override { return base_->Lock(); }
  void DropCache() override { base_->DropCache(); }
  void WriteDirectly(DirectWrites how) override { base_->WriteDirectly(how); }

 private:
  bool Counts() const { return enabled_.load(std::memory_order_relaxed) && std::this_thread::get_id() == owner_; }

  const std::unique_ptr<File> base_;
  const std::thread::id owner_;
  const std::atomic<bool>& enabled_;
  CallTimes& times_;
};

}  // namespace

int64_t NowNanos() { return Nanos(CLOCK_MONOTONIC); }
int64_t ThreadNanos() { return Nanos(CLOCK_THREAD_CPUTIME_ID); }

ThreadUsage Usage() {
  rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return {Micros(usage.ru_utime), Micros(usage.ru_stime)};
}

absl::StatusOr<uint64_t> DiskReadBytes() {
  std::ifstream file("/proc/self/io");
  std::string name;
  uint64_t value = 0;
  while (file >> name >> value) {
    if (name == "read_bytes:") return value;
  }
  return absl::UnavailableError("/proc/self/io has no read_bytes");
}

absl::StatusOr<uint64_t> ResidentMemory() {
  malloc_trim(0);
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  if (!(file >> total >> resident)) return absl::UnavailableError("cannot read /proc/self/statm");
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

absl::StatusOr<std::unique_ptr<File>> TimedFileSystem::Open(const std::string& path, OpenMode mode) {
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, base_.Open(path, mode));
  return std::make_unique<TimedFile>(std::move(file), owner_, enabled_, &times_);
}

}  // namespace towline::bench
