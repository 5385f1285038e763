// Append + sync beside plain pwrite + fdatasync, in turns, so that both see the same disk.
//
// The yardstick, "aligned", is the best that plain pwrite + fdatasync can do for a log: it overwrites a zero-filled
// file (no metadata changes, no page is read first), every write begins and ends at a page boundary, the bytes are
// ready in memory, and nothing is kept, indexed or handed on. Like a log it goes forward only: each page is written for
// the first time since it was zero-filled. (A small file that is overwritten in a ring is up to a tenth faster, from
// warm page structures of the kernel; no log that keeps its records can have that.) A log gets there only if its groups
// happen to be whole pages: frames stand back to back, so a group begins where the last one ended, in the middle of a
// page. "packed" does the latter: the same bytes at the offsets that the spool uses, with the padding that the spool
// writes. Aligned against packed is what the format costs the disk, packed against spool what the program costs.

#include <array>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "tests/bench/wal_bench_machine.h"
#include "tests/bench/wal_bench_report.h"
#include "tests/bench/wal_bench_spool.h"
#include "wal/segment_format.h"

namespace towline::bench {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr size_t kPayloadBytes = 200;  // frames of 256 bytes: groups are exactly as large as wanted
constexpr uint64_t kGroupSizes[] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
constexpr double kTargetRatio = 0.9;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// A zero-filled file, overwritten once from start to end.
class PlainFile {
 public:
  static absl::StatusOr<PlainFile> Create(const std::string& path, uint64_t size, bool aligned) {
    PlainFile plain;
    TOWLINE_ASSIGN_OR_RETURN(plain.file_, PosixFileSystem()->Open(path, OpenMode::kCreate));
    const std::string zeros(1 << 20, '\0');
    for (uint64_t offset = 0; offset < size; offset += zeros.size()) {
      TOWLINE_RETURN_IF_ERROR(plain.file_->WriteAt(offset, zeros));
    }
    TOWLINE_RETURN_IF_ERROR(plain.file_->SyncData());
    plain.start_ = aligned ? 0 : wal::kFramesStart;
    plain.offset_ = plain.start_;
    return plain;
  }

  // Writes up to the end of the last page. The padding is added outside the measured time.
  absl::Status Append(const std::string& bytes, double* micros) {
    const uint64_t end = offset_ + bytes.size();
    padded_.assign(bytes);
    padded_.resize(static_cast<size_t>(RoundUp(end, kPageBytes) - offset_), '\0');
    const int64_t start = NowNanos();
    TOWLINE_RETURN_IF_ERROR(file_->WriteAt(offset_, padded_));
    TOWLINE_RETURN_IF_ERROR(file_->SyncData());
    *micros = static_cast<double>(NowNanos() - start) / 1e3;
    offset_ = start_ == 0 ? RoundUp(end, kPageBytes) : end;
    return absl::OkStatus();
  }

 private:
  std::unique_ptr<File> file_;
  std::string padded_;
  uint64_t start_ = 0;
  uint64_t offset_ = 0;
};

// Medians of the rounds, for one group size.
struct Rounds {
  std::vector<double> spool;
  std::vector<double> aligned;
  std::vector<double> packed;
  std::vector<double> spool_all;  // every append of every round
  std::vector<double> aligned_all;
};

// Where the time of an append goes: means in nanoseconds, of a round of its own, because the clocks cost time too.
struct Breakdown {
  double write = 0;
  double sync = 0;
  double user = 0;
};

class AppendBench {
 public:
  AppendBench(const Settings& settings, Report* report)
      : settings_(settings),
        report_(*report),
        timed_fs_(*PosixFileSystem()),
        spool_(JoinPath(settings.directory, "append"), Options(settings), &timed_fs_) {}

  absl::Status Run();

 private:
  static wal::SpoolOptions Options(const Settings& settings) {
    wal::SpoolOptions options;
    options.segment_bytes = settings.Pick<uint64_t>(4 << 20, 64 << 20, 64 << 20);
    return options;
  }

  size_t Times(uint64_t group_bytes) const {
    return group_bytes >= 256 << 10 ? settings_.Pick<size_t>(3, 200, 200) : settings_.Pick<size_t>(3, 600, 600);
  }
  absl::Status Round(uint64_t group_bytes, Rounds* rounds);
  absl::Status AppendOnce(uint64_t group_bytes, size_t turn, std::array<double, 3>* micros);
  absl::Status BreakDown(uint64_t group_bytes, Breakdown* breakdown);
  void Add(uint64_t group_bytes, const Rounds& rounds, const Breakdown& breakdown);

  const Settings& settings_;
  Report& report_;
  TimedFileSystem timed_fs_;
  BenchSpool spool_;
  std::unique_ptr<PlainFile> aligned_;
  std::unique_ptr<PlainFile> packed_;
  std::string bytes_;  // what the plain sides write
};

absl::Status AppendBench::Run() {
  const int count = settings_.Pick(2, 5, 7);
  uint64_t log_bytes = 0;
  for (const uint64_t size : kGroupSizes) log_bytes += static_cast<uint64_t>(count + 1) * Times(size) * size;
  TOWLINE_RETURN_IF_ERROR(NeedSpace(settings_.directory, 4 * log_bytes));
  TOWLINE_RETURN_IF_ERROR(spool_.OpenWithSpares(log_bytes));
  timed_fs_.Enable(false);
  for (const bool aligned : {true, false}) {
    const std::string path = JoinPath(spool_.directory(), absl::StrCat("plain-", aligned));
    TOWLINE_ASSIGN_OR_RETURN(PlainFile plain, PlainFile::Create(path, log_bytes, aligned));
    (aligned ? aligned_ : packed_) = std::make_unique<PlainFile>(std::move(plain));
  }
  constexpr size_t kSizes = std::size(kGroupSizes);
  std::array<Rounds, kSizes> rounds;
  // Rounds outside, sizes inside: what changes on the machine while this runs meets all sizes.
  for (int i = 0; i < count; ++i) {
    for (size_t size_index = 0; size_index < kSizes; ++size_index) {
      TOWLINE_RETURN_IF_ERROR(Round(kGroupSizes[size_index], &rounds[size_index]));
    }
  }
  for (size_t i = 0; i < kSizes; ++i) {
    Breakdown breakdown;
    TOWLINE_RETURN_IF_ERROR(BreakDown(kGroupSizes[i], &breakdown));
    Add(kGroupSizes[i], rounds[i], breakdown);
  }
  return absl::OkStatus();
}

absl::Status AppendBench::Round(uint64_t group_bytes, Rounds* rounds) {
  const size_t times =
      group_bytes >= 256 << 10 ? settings_.Pick<size_t>(3, 200, 400) : settings_.Pick<size_t>(3, 600, 1200);
  std::array<std::vector<double>, 3> samples;
  for (size_t i = 0; i < times; ++i) {
    std::array<double, 3> micros;
    TOWLINE_RETURN_IF_ERROR(AppendOnce(group_bytes, i, &micros));
    for (size_t side = 0; side < samples.size(); ++side) samples[side].push_back(micros[side]);
  }
  rounds->spool.push_back(Median(samples[0]));
  rounds->aligned.push_back(Median(samples[1]));
  rounds->packed.push_back(Median(samples[2]));
  rounds->spool_all.insert(rounds->spool_all.end(), samples[0].begin(), samples[0].end());
  rounds->aligned_all.insert(rounds->aligned_all.end(), samples[1].begin(), samples[1].end());
  return absl::OkStatus();
}

// Who goes first changes with every turn. Each side makes its bytes just before it writes them, so that all write from
// the processor's cache.
absl::Status AppendBench::AppendOnce(uint64_t group_bytes, size_t turn, std::array<double, 3>* micros) {
  bytes_.resize(group_bytes, 'p');
  for (size_t i = 0; i < 3; ++i) {
    const size_t side = (turn + i) % 3;
    if (side == 1) TOWLINE_RETURN_IF_ERROR(aligned_->Append(bytes_, &(*micros)[1]));
    if (side == 2) TOWLINE_RETURN_IF_ERROR(packed_->Append(bytes_, &(*micros)[2]));
    if (side != 0) continue;
    const std::shared_ptr<wal::FrameGroup> group = spool_.MakeGroup(group_bytes, kPayloadBytes);
    const int64_t start = NowNanos();
    TOWLINE_RETURN_IF_ERROR(spool_->Append(group));
    (*micros)[0] = static_cast<double>(NowNanos() - start) / 1e3;
  }
  return absl::OkStatus();
}

absl::Status AppendBench::BreakDown(uint64_t group_bytes, Breakdown* breakdown) {
  const size_t times = Times(group_bytes);
  timed_fs_.Enable(true);
  const CallTimes before = timed_fs_.times();
  int64_t cpu = 0;
  for (size_t i = 0; i < times; ++i) {
    const std::shared_ptr<wal::FrameGroup> group = spool_.MakeGroup(group_bytes, kPayloadBytes);
    const int64_t start = ThreadNanos();
    TOWLINE_RETURN_IF_ERROR(spool_->Append(group));
    cpu += ThreadNanos() - start;
  }
  const CallTimes& after = timed_fs_.times();
  timed_fs_.Enable(false);
  const double count = static_cast<double>(times);
  breakdown->write = static_cast<double>(after.write_wall - before.write_wall) / count;
  breakdown->sync = static_cast<double>(after.sync_wall - before.sync_wall) / count;
  const int64_t kernel = after.write_cpu - before.write_cpu + after.sync_cpu - before.sync_cpu;
  breakdown->user = static_cast<double>(cpu - kernel) / count;
  return absl::OkStatus();
}

void AppendBench::Add(uint64_t group_bytes, const Rounds& rounds, const Breakdown& breakdown) {
  std::vector<double> ratios;
  std::vector<double> packed_ratios;
  for (size_t i = 0; i < rounds.spool.size(); ++i) {
    ratios.push_back(rounds.aligned[i] / rounds.spool[i]);
    packed_ratios.push_back(rounds.packed[i] / rounds.spool[i]);
  }
  const bool has_target = group_bytes == 4 << 10 || group_bytes == 64 << 10 || group_bytes == 1 << 20;
  Figure figure;
  figure.name = absl::StrCat(group_bytes >> 10, " KiB: rate of the spool / rate of aligned");
  figure.value = Median(ratios);
  figure.unit = "ratio";
  figure.target = has_target ? Target::AtLeast(kTargetRatio) : Target::None();
  figure.spread = Spread(rounds.aligned);
  figure.limit = "disk: pwrite + fdatasync";
  figure.details = {
      {"lowest", Quantile(ratios, 0)},
      {"highest", Highest(ratios)},
      {"of packed", Median(packed_ratios)},
      {"spool us", Median(rounds.spool)},
      {"aligned us", Median(rounds.aligned)},
      {"packed us", Median(rounds.packed)},
      {"spool p99", Quantile(rounds.spool_all, 0.99)},
      {"aligned p99", Quantile(rounds.aligned_all, 0.99)},
      {"spool MB/s", static_cast<double>(group_bytes) / Median(rounds.spool)},
      {"write us", breakdown.write / 1e3},
      {"sync us", breakdown.sync / 1e3},
      {"program us", breakdown.user / 1e3},
  };
  report_.Add(std::move(figure));
}

}  // namespace

absl::Status MeasureAppend(const Settings& settings, Report* report) { return AppendBench(settings, report).Run(); }

}  // namespace towline::bench
