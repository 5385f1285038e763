// A spool to be measured, and the parts of the benchmark.

#ifndef TOWLINE_TESTS_BENCH_WAL_BENCH_SPOOL_H_
#define TOWLINE_TESTS_BENCH_WAL_BENCH_SPOOL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/executor.h"
#include "common/file_system.h"
#include "tests/bench/wal_bench_report.h"
#include "wal/spool.h"

namespace towline::bench {

// How much to do.
enum class Form { kSmoke, kShort, kLong };

struct Settings {
  std::string directory;  // exists, is empty, and is removed by the caller
  Form form = Form::kShort;

  template <typename T>
  T Pick(T smoke, T brief, T lengthy) const {
    return form == Form::kSmoke ? smoke : form == Form::kShort ? brief : lengthy;
  }
};

// The parts. Each removes its files.
absl::Status MeasureAppend(const Settings& settings, Report* report);
absl::Status MeasureCpu(const Settings& settings, Report* report);
absl::Status MeasureSeek(const Settings& settings, Report* report);
absl::Status MeasureOpen(const Settings& settings, Report* report);
absl::Status MeasureRead(const Settings& settings, Report* report);

// A spool in a directory of its own, which it removes at the end.
class BenchSpool {
 public:
  BenchSpool(std::string directory, const wal::SpoolOptions& options, FileSystem* fs = PosixFileSystem());
  ~BenchSpool();

  wal::Spool* operator->() { return spool_.get(); }
  const std::string& directory() const { return wal_; }
  wal::SpoolOptions& options() { return options_; }
  const wal::RecoveryReport& report() const { return report_; }

  // Opens it, or opens it anew.
  absl::Status Open();
  void Close() { spool_.reset(); }

  // Commit time of a record that Fill wrote.
  static int64_t TimeOf(Lsn lsn) { return 1700000000000000 + 10 * static_cast<int64_t>(lsn); }

  // A group of exactly `group_bytes` if frames of that payload divide it, else of a little less.
  std::shared_ptr<wal::FrameGroup> MakeGroup(uint64_t group_bytes, size_t payload_bytes);
  // Appends records up to LSN `last`, in large groups.
  absl::Status Fill(Lsn last, size_t payload_bytes);
  // Opens it with spares for that many bytes of log, and makes none from then on: zeros that are written meanwhile
  // would take the disk from whoever is measured just then.
  absl::Status OpenWithSpares(uint64_t log_bytes);
  // Until the background has written an index file for each sealed segment.
  absl::Status WaitForIndexes();

  // Segments and their indexes.
  absl::StatusOr<std::vector<std::string>> Files() const;
  absl::StatusOr<std::vector<Lsn>> SegmentLsns() const;
  // Takes all files out of the page cache. Returns the bytes that stayed there nevertheless.
  absl::StatusOr<uint64_t> DropCache() const;

 private:
  const std::string root_;
  const std::string wal_;
  FileSystem& fs_;
  wal::SpoolOptions options_;
  std::unique_ptr<Executor> executor_;
  wal::RecoveryReport report_;
  std::unique_ptr<wal::Spool> spool_;
};

// RESOURCE_EXHAUSTED, with what is missing, unless the disk has that much.
absl::Status NeedSpace(const std::string& directory, uint64_t bytes);

}  // namespace towline::bench

#endif  // TOWLINE_TESTS_BENCH_WAL_BENCH_SPOOL_H_
