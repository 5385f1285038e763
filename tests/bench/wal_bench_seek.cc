// Seeks in a log of many small records: 64-byte frames, about a thousand of them between two index entries.
//
// Cold: a freshly opened spool (no index in memory, no file open) whose files have no page in the page cache; each seek
// goes to a segment that none before it has touched. Names and inodes stay cached, as the spool has just listed and
// opened them itself. Bytes that the disk read are counted, which shows that cold is cold.
// Warm: the same seeks once more.

#include <algorithm>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "tests/bench/wal_bench_machine.h"
#include "tests/bench/wal_bench_report.h"
#include "tests/bench/wal_bench_spool.h"

namespace towline::bench {
namespace {

constexpr size_t kPayloadBytes = 8;
constexpr size_t kBatchBytes = 64 << 10;
constexpr double kColdTargetMicros = 5000;
constexpr double kWarmTargetMicros = 100;

class SeekBench {
 public:
  SeekBench(const Settings& settings, Report* report)
      : settings_(settings),
        report_(*report),
        records_(settings.Pick<Lsn>(30000, 1000000, 100000000)),
        spool_(JoinPath(settings.directory, "seek"), Options(settings)) {}

  absl::Status Run();

 private:
  struct Kind {
    const char* name;
    absl::Status (SeekBench::*seek)(Lsn lsn);
  };

  static wal::SpoolOptions Options(const Settings& settings) {
    wal::SpoolOptions options;
    options.segment_bytes = settings.Pick<uint64_t>(256 << 10, 8 << 20, 64 << 20);
    options.spare_segments = 0;  // nothing in the background while seeks are measured
    return options;
  }

  absl::Status SeekEnd(Lsn lsn);
  absl::Status SeekCursor(Lsn lsn);
  absl::Status SeekTime(Lsn lsn);

  absl::Status Cold(const Kind& kind);
  absl::Status ColdOnce(const Kind& kind, size_t count);
  absl::Status Warm(const Kind& kind);
  absl::Status Memory();
  Lsn Random(Lsn first, Lsn last) { return std::uniform_int_distribution<Lsn>(first, last)(random_); }
  void Add(const Kind& kind, const std::string& state, double target, const std::vector<double>& micros,
           std::vector<std::pair<std::string, double>> details);

  const Settings& settings_;
  Report& report_;
  const Lsn records_;
  BenchSpool spool_;
  std::mt19937_64 random_{1};
  std::vector<Lsn> segments_;  // first LSNs
  // Of the cold seeks of one kind:
  std::vector<double> micros_;
  std::vector<double> read_bytes_;
  double stayed_bytes_ = 0;
};

absl::Status SeekBench::Run() {
  const uint64_t needed = records_ * wal::FrameSize(kPayloadBytes) * 21 / 20 + (1ull << 30);
  TOWLINE_RETURN_IF_ERROR(NeedSpace(settings_.directory, needed));
  TOWLINE_RETURN_IF_ERROR(spool_.Open());
  TOWLINE_RETURN_IF_ERROR(spool_.Fill(records_, kPayloadBytes));
  TOWLINE_RETURN_IF_ERROR(spool_.WaitForIndexes());
  TOWLINE_ASSIGN_OR_RETURN(segments_, spool_.SegmentLsns());

  constexpr Kind kKinds[] = {{"EndAt", &SeekBench::SeekEnd},
                             {"cursor and first 64 KiB", &SeekBench::SeekCursor},
                             {"time", &SeekBench::SeekTime}};
  for (const Kind& kind : kKinds) TOWLINE_RETURN_IF_ERROR(Cold(kind));
  for (const Kind& kind : kKinds) TOWLINE_RETURN_IF_ERROR(Warm(kind));
  return Memory();
}

absl::Status SeekBench::SeekEnd(Lsn lsn) {
  TOWLINE_ASSIGN_OR_RETURN(const wal::LogEnd end, spool_->EndAt(lsn));
  return end.lsn == lsn ? absl::OkStatus() : absl::InternalError(absl::StrCat("EndAt of ", lsn, " gave ", end.lsn));
}

absl::Status SeekBench::SeekCursor(Lsn lsn) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<wal::Cursor> cursor, spool_->NewCursor(lsn));
  TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedBatch batch, cursor->Next(kBatchBytes));
  if (!batch.empty() && batch.before.lsn + 1 == lsn) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cursor at ", lsn, " gave ", batch.before.lsn + 1));
}

absl::Status SeekBench::SeekTime(Lsn lsn) {
  TOWLINE_ASSIGN_OR_RETURN(const Lsn found, spool_->SeekTime(BenchSpool::TimeOf(lsn)));
  return found == lsn ? absl::OkStatus() : absl::InternalError(absl::StrCat("time of ", lsn, " gave ", found));
}

absl::Status SeekBench::Cold(const Kind& kind) {
  micros_.clear();
  read_bytes_.clear();
  stayed_bytes_ = 0;
  const size_t samples = settings_.Pick<size_t>(4, 200, 400);
  while (micros_.size() < samples) {
    TOWLINE_RETURN_IF_ERROR(spool_.Open());
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t stayed, spool_.DropCache());
    stayed_bytes_ = std::max(stayed_bytes_, static_cast<double>(stayed));
    TOWLINE_RETURN_IF_ERROR(ColdOnce(kind, std::min<size_t>(samples - micros_.size(), 40)));
  }
  Add(kind, "cold", kColdTargetMicros, micros_,
      {{"disk KiB/seek", Median(read_bytes_) / 1024},
       {"lowest KiB", Quantile(read_bytes_, 0) / 1024},
       {"highest KiB", Highest(read_bytes_) / 1024},
       {"cached before, bytes", stayed_bytes_}});
  return absl::OkStatus();
}

// Up to `count` seeks, each in a segment of its own.
absl::Status SeekBench::ColdOnce(const Kind& kind, size_t count) {
  std::vector<size_t> order(segments_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random_);
  order.resize(std::min(order.size(), count));
  for (const size_t i : order) {
    const Lsn last = i + 1 < segments_.size() ? segments_[i + 1] - 1 : records_;
    const Lsn lsn = Random(segments_[i], last);
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t before, DiskReadBytes());
    const int64_t start = NowNanos();
    TOWLINE_RETURN_IF_ERROR((this->*kind.seek)(lsn));
    micros_.push_back(static_cast<double>(NowNanos() - start) / 1e3);
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t after, DiskReadBytes());
    read_bytes_.push_back(static_cast<double>(after - before));
  }
  return absl::OkStatus();
}

absl::Status SeekBench::Warm(const Kind& kind) {
  std::vector<Lsn> lsns(settings_.Pick<size_t>(20, 2000, 5000));
  for (Lsn& lsn : lsns) lsn = Random(1, records_);
  for (const Lsn lsn : lsns) TOWLINE_RETURN_IF_ERROR((this->*kind.seek)(lsn));
  std::vector<double> micros;
  std::vector<double> medians;
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t read_before, DiskReadBytes());
  for (int round = 0; round < settings_.Pick(1, 5, 5); ++round) {
    std::vector<double> of_round;
    for (const Lsn lsn : lsns) {
      const int64_t start = NowNanos();
      TOWLINE_RETURN_IF_ERROR((this->*kind.seek)(lsn));
      of_round.push_back(static_cast<double>(NowNanos() - start) / 1e3);
    }
    medians.push_back(Median(of_round));
    micros.insert(micros.end(), of_round.begin(), of_round.end());
  }
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t read_after, DiskReadBytes());
  Add(kind, "warm", kWarmTargetMicros, micros,
      {{"lowest round median", Quantile(medians, 0)},
       {"highest round median", Highest(medians)},
       {"disk KiB/seek", static_cast<double>(read_after - read_before) / 1024 / static_cast<double>(micros.size())}});
  return absl::OkStatus();
}

void SeekBench::Add(const Kind& kind, const std::string& state, double target, const std::vector<double>& micros,
                    std::vector<std::pair<std::string, double>> details) {
  for (const auto& [name, q] : {std::pair("median", 0.5), std::pair("p99", 0.99)}) {
    Figure figure;
    figure.name = absl::StrCat(kind.name, ", ", state, ", ", name);
    figure.value = Quantile(micros, q);
    figure.unit = "us";
    figure.target = Target::AtMost(target);
    if (q > 0.5) {
      figure.details = {{"highest", Highest(micros)}, {"seeks", static_cast<double>(micros.size())}};
    } else {
      figure.limit = state == "cold" ? "disk: reads of index and log, one behind the other"
                                     : "processor: checks of the frames from the index entry on";
      figure.details = details;
    }
    report_.Add(std::move(figure));
  }
}

absl::Status SeekBench::Memory() {
  spool_.Close();
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t closed, ResidentMemory());
  TOWLINE_RETURN_IF_ERROR(spool_.Open());
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t opened, ResidentMemory());
  for (size_t i = 0; i < settings_.Pick<size_t>(20, 2000, 5000); ++i) {
    TOWLINE_RETURN_IF_ERROR(SeekEnd(Random(1, records_)));
  }
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t sought, ResidentMemory());
  Figure figure;
  figure.name = "memory after seeks everywhere, above closed";
  figure.value = (static_cast<double>(sought) - static_cast<double>(closed)) / (1 << 20);
  figure.unit = "MiB";
  figure.details = {{"of it after open", (static_cast<double>(opened) - static_cast<double>(closed)) / (1 << 20)},
                    {"segments", static_cast<double>(segments_.size())},
                    {"records", static_cast<double>(records_)}};
  report_.Add(std::move(figure));
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureSeek(const Settings& settings, Report* report) { return SeekBench(settings, report).Run(); }

}  // namespace towline::bench
