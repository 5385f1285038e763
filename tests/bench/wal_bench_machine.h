// The machine under a benchmark: clocks, page cache, counters of the process, and files that tell their time.

#ifndef TOWLINE_TESTS_BENCH_WAL_BENCH_MACHINE_H_
#define TOWLINE_TESTS_BENCH_WAL_BENCH_MACHINE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"

namespace towline::bench {

int64_t NowNanos();
// Processor time of this thread, user and system: what a busy neighbour disturbs least.
int64_t ThreadNanos();

struct ThreadUsage {
  double user_us = 0;
  double system_us = 0;
};
// Of this thread since its start. The kernel splits by clock ticks: good for stretches of a second, no less.
ThreadUsage Usage();

// Bytes that this process has made the disk read.
absl::StatusOr<uint64_t> DiskReadBytes();
// Memory of this process, after the allocator gave back what it could.
absl::StatusOr<uint64_t> ResidentMemory();

// What was spent in calls of the kernel.
struct CallTimes {
  int64_t write_wall = 0;  // nanoseconds
  int64_t write_cpu = 0;
  int64_t sync_wall = 0;
  int64_t sync_cpu = 0;
};

// Another file system, and how long writes and syncs of the thread that made this object take there.
class TimedFileSystem : public FileSystem {
 public:
  explicit TimedFileSystem(FileSystem& base) : base_(base) {}

  const CallTimes& times() const { return times_; }
  // Off: files take no time of the clock's calls, which is a part of what a small write takes.
  void Enable(bool enabled) { enabled_ = enabled; }

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override { return base_.List(directory); }
  absl::Status CreateDirectory(const std::string& path) override { return base_.CreateDirectory(path); }
  absl::Status Rename(const std::string& from, const std::string& to) override { return base_.Rename(from, to); }
  absl::Status Remove(const std::string& path) override { return base_.Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override { return base_.SyncDirectory(path); }
  absl::Status Link(const std::string& from, const std::string& to) override { return base_.Link(from, to); }
  absl::StatusOr<uint64_t> LinkCount(const std::string& path) override { return base_.LinkCount(path); }
  absl::StatusOr<SpaceInfo> Space(const std::string& path) override { return base_.Space(path); }

 private:
  FileSystem& base_;
  const std::thread::id owner_ = std::this_thread::get_id();
  std::atomic<bool> enabled_{true};
  CallTimes times_;
};

}  // namespace towline::bench

#endif  // TOWLINE_TESTS_BENCH_WAL_BENCH_MACHINE_H_
