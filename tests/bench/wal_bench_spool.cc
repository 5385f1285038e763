#include "tests/bench/wal_bench_spool.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/logger.h"
#include "common/rng.h"
#include "tests/bench/wal_bench_machine.h"
#include "tests/support/page_cache.h"
#include "wal/segment_format.h"

namespace towline::bench {
namespace {

constexpr uint64_t kFillGroupBytes = 1 << 20;
constexpr int64_t kDeadlineNanos = 120000000000;

// Calls `done` until it is true.
absl::Status WaitUntil(absl::string_view what, const std::function<absl::StatusOr<bool>()>& done) {
  const int64_t deadline = NowNanos() + kDeadlineNanos;
  while (true) {
    TOWLINE_ASSIGN_OR_RETURN(const bool is_done, done());
    if (is_done) return absl::OkStatus();
    if (NowNanos() > deadline) return absl::DeadlineExceededError(absl::StrCat("waited in vain for ", what));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

BenchSpool::BenchSpool(std::string directory, const wal::SpoolOptions& options, FileSystem* fs)
    : root_(std::move(directory)),
      wal_(JoinPath(root_, "wal")),
      fs_(*fs),
      options_(options),
      executor_(NewThreadExecutor()) {}

BenchSpool::~BenchSpool() {
  spool_.reset();
  RemoveAll(fs_, root_).IgnoreError();
}

absl::Status BenchSpool::Open() {
  spool_.reset();
  TOWLINE_RETURN_IF_ERROR(fs_.CreateDirectory(root_));
  const wal::SpoolEnvironment env{fs_, *SystemClock(), *SystemRng(), *executor_, *NullLogger()};
  wal::RecoveryInputs inputs;
  inputs.cluster_id = std::string(kClusterIdSize, 'b');
  TOWLINE_ASSIGN_OR_RETURN(spool_, OpenSpool(env, wal_, JoinPath(root_, "quarantine"), options_, inputs, &report_));
  return absl::OkStatus();
}

std::shared_ptr<wal::FrameGroup> BenchSpool::MakeGroup(uint64_t group_bytes, size_t payload_bytes) {
  wal::GroupBuilder builder(spool_->end());
  const std::string payload(payload_bytes, 'p');
  const uint32_t crc = Crc32c(payload);
  do {
    builder.Add(wal::RecordType::kBatch, 1, TimeOf(builder.end().lsn + 1), payload, crc);
  } while (builder.bytes() + wal::FrameSize(payload_bytes) <= group_bytes);
  return builder.Finish();
}

absl::Status BenchSpool::Fill(Lsn last, size_t payload_bytes) {
  while (spool_->end().lsn < last) {
    const uint64_t missing = (last - spool_->end().lsn) * wal::FrameSize(payload_bytes);
    TOWLINE_RETURN_IF_ERROR(spool_->Append(MakeGroup(std::min(missing, kFillGroupBytes), payload_bytes)));
  }
  return absl::OkStatus();
}

absl::Status BenchSpool::OpenWithSpares(uint64_t log_bytes) {
  // Groups are not split, so a segment may end a group early.
  const int count = static_cast<int>(log_bytes / (options_.segment_bytes - kFillGroupBytes)) + 2;
  TOWLINE_RETURN_IF_ERROR(fs_.CreateDirectory(root_));
  TOWLINE_RETURN_IF_ERROR(NeedSpace(root_, static_cast<uint64_t>(count + 1) * options_.segment_bytes + (1ull << 30)));
  options_.spare_segments = count;
  TOWLINE_RETURN_IF_ERROR(Open());
  TOWLINE_RETURN_IF_ERROR(Fill(1, 1));  // none are made for an empty log
  TOWLINE_RETURN_IF_ERROR(WaitUntil("spare segments", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(wal_));
    const auto is_spare = [](const std::string& name) {
      return wal::ParseFileName(name).kind == wal::FileKind::kSpare;
    };
    return std::count_if(names.begin(), names.end(), is_spare) >= count;
  }));
  options_.spare_segments = 0;
  return Open();
}

absl::Status BenchSpool::WaitForIndexes() {
  return WaitUntil("index files", [&]() -> absl::StatusOr<bool> {
    TOWLINE_ASSIGN_OR_RETURN(const std::vector<Lsn> segments, SegmentLsns());
    TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> files, Files());
    return files.size() + 1 >= 2 * segments.size();
  });
}

absl::StatusOr<std::vector<std::string>> BenchSpool::Files() const {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(wal_));
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    const wal::FileKind kind = wal::ParseFileName(name).kind;
    if (kind == wal::FileKind::kSegment || kind == wal::FileKind::kIndex) paths.push_back(JoinPath(wal_, name));
  }
  return paths;
}

absl::StatusOr<std::vector<Lsn>> BenchSpool::SegmentLsns() const {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs_.List(wal_));
  std::vector<Lsn> lsns;
  for (const std::string& name : names) {
    const wal::FileName parsed = wal::ParseFileName(name);
    if (parsed.kind == wal::FileKind::kSegment) lsns.push_back(parsed.number);
  }
  return lsns;
}

absl::StatusOr<uint64_t> BenchSpool::DropCache() const {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> files, Files());
  uint64_t stayed = 0;
  for (const std::string& path : files) {
    TOWLINE_RETURN_IF_ERROR(test::DropPages(path));
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t resident, test::ResidentBytes(path));
    stayed += resident;
  }
  return stayed;
}

absl::Status NeedSpace(const std::string& directory, uint64_t bytes) {
  TOWLINE_ASSIGN_OR_RETURN(const SpaceInfo space, PosixFileSystem()->Space(directory));
  if (space.available_bytes >= bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(directory, " has ", space.available_bytes >> 20, " MiB left, this form needs ", bytes >> 20,
                   " MiB: ", (bytes - space.available_bytes) >> 20, " MiB are missing"));
}

}  // namespace towline::bench
