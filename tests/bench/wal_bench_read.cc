// Cursors beside plain pread of the same files in pieces of the same size, in turns: from the page cache, from the
// disk, and behind the writer from memory.

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "tests/bench/wal_bench_machine.h"
#include "tests/bench/wal_bench_report.h"
#include "tests/bench/wal_bench_spool.h"
#include "wal/segment_format.h"

namespace towline::bench {
namespace {

constexpr size_t kPayloadBytes = 256;
constexpr size_t kBatchSizes[] = {64 << 10, 256 << 10, 1 << 20};
constexpr double kTargetMegabytes = 200;  // what a replica that catches up should get at least

struct Rate {
  double megabytes = 0;  // a second
  double records = 0;    // millions a second
};

class ReadBench {
 public:
  ReadBench(const Settings& settings, Report* report)
      : settings_(settings), report_(*report), spool_(JoinPath(settings.directory, "read"), Options(settings)) {}

  absl::Status Run();

 private:
  static wal::SpoolOptions Options(const Settings& settings) {
    wal::SpoolOptions options;
    options.segment_bytes = settings.Pick<uint64_t>(1 << 20, 64 << 20, 64 << 20);
    options.spare_segments = 0;
    return options;
  }

  absl::Status FromFiles(size_t batch_bytes, bool cold);
  absl::StatusOr<Rate> ReadByCursor(size_t batch_bytes);
  absl::StatusOr<double> ReadPlain(size_t piece_bytes);
  absl::Status FromMemory(size_t batch_bytes);

  const Settings& settings_;
  Report& report_;
  BenchSpool spool_;
  std::vector<std::string> sealed_;  // paths
  Lsn last_sealed_ = 0;
};

absl::Status ReadBench::Run() {
  const uint64_t segments = settings_.Pick<uint64_t>(2, 4, 16);
  TOWLINE_RETURN_IF_ERROR(
      NeedSpace(settings_.directory, (segments + 1) * spool_.options().segment_bytes + (1ull << 30)));
  TOWLINE_RETURN_IF_ERROR(spool_.Open());
  std::vector<Lsn> lsns;
  while (lsns.size() <= segments) {
    TOWLINE_RETURN_IF_ERROR(spool_->Append(spool_.MakeGroup(512 << 10, kPayloadBytes)));
    TOWLINE_ASSIGN_OR_RETURN(lsns, spool_.SegmentLsns());
  }
  TOWLINE_RETURN_IF_ERROR(spool_.WaitForIndexes());
  last_sealed_ = lsns.back() - 1;
  lsns.pop_back();
  for (const Lsn lsn : lsns) sealed_.push_back(JoinPath(spool_.directory(), wal::SegmentFileName(lsn)));
  TOWLINE_RETURN_IF_ERROR(spool_.Open());  // without the tail in memory
  for (const bool cold : {false, true}) {
    for (const size_t size : kBatchSizes) TOWLINE_RETURN_IF_ERROR(FromFiles(size, cold));
  }
  for (const size_t size : kBatchSizes) TOWLINE_RETURN_IF_ERROR(FromMemory(size));
  return absl::OkStatus();
}

absl::StatusOr<Rate> ReadBench::ReadByCursor(size_t batch_bytes) {
  const int64_t start = NowNanos();
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<wal::Cursor> cursor, spool_->NewCursor(1));
  uint64_t bytes = 0;
  while (cursor->next_lsn() <= last_sealed_) {
    TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedBatch batch, cursor->Next(batch_bytes));
    bytes += batch.bytes.size();
  }
  const double micros = static_cast<double>(NowNanos() - start) / 1e3;
  return Rate{static_cast<double>(bytes) / micros, static_cast<double>(last_sealed_) / micros};
}

absl::StatusOr<double> ReadBench::ReadPlain(size_t piece_bytes) {
  std::string buffer(piece_bytes, '\0');
  uint64_t bytes = 0;
  const int64_t start = NowNanos();
  for (const std::string& path : sealed_) {
    TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, PosixFileSystem()->Open(path, OpenMode::kRead));
    for (uint64_t offset = 0;; offset += piece_bytes) {
      TOWLINE_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(offset, piece_bytes, buffer.data()));
      bytes += got;
      if (got < piece_bytes) break;
    }
  }
  return static_cast<double>(bytes) / (static_cast<double>(NowNanos() - start) / 1e3);
}

absl::Status ReadBench::FromFiles(size_t batch_bytes, bool cold) {
  std::vector<double> rates, records, plain, ratios;
  for (int round = 0; round < settings_.Pick(1, 5, 9); ++round) {
    if (cold) TOWLINE_RETURN_IF_ERROR(spool_.DropCache().status());
    TOWLINE_ASSIGN_OR_RETURN(const double ceiling, ReadPlain(batch_bytes));
    if (cold) TOWLINE_RETURN_IF_ERROR(spool_.DropCache().status());
    TOWLINE_ASSIGN_OR_RETURN(const Rate rate, ReadByCursor(batch_bytes));
    rates.push_back(rate.megabytes);
    records.push_back(rate.records);
    plain.push_back(ceiling);
    ratios.push_back(rate.megabytes / ceiling);
  }
  Figure figure;
  figure.name = absl::StrCat(cold ? "disk" : "page cache", ", ", batch_bytes >> 10, " KiB batches");
  figure.value = Median(rates);
  figure.unit = "MB/s";
  figure.target = Target::AtLeast(kTargetMegabytes);
  figure.spread = Spread(plain);
  figure.limit = cold ? "disk: reads" : "processor: checks and copies of frames";
  figure.details = {{"lowest", Quantile(rates, 0)},
                    {"highest", Highest(rates)},
                    {"M records/s", Median(records)},
                    {"pread MB/s", Median(plain)},
                    {"ratio to pread", Median(ratios)}};
  report_.Add(std::move(figure));
  return absl::OkStatus();
}

// Only the cursor's calls are timed, and for the ceiling a copy of the bytes that they gave.
absl::Status ReadBench::FromMemory(size_t batch_bytes) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<wal::Cursor> cursor, spool_->NewCursor(spool_->end().lsn + 1));
  std::vector<double> rates, records, ratios, copies;
  std::string copy(2 << 20, '\0');
  for (int round = 0; round < settings_.Pick(1, 5, 9); ++round) {
    int64_t nanos = 0;
    int64_t copy_nanos = 0;
    uint64_t bytes = 0;
    const Lsn first = cursor->next_lsn();
    for (int i = 0; i < settings_.Pick(4, 100, 200); ++i) {
      TOWLINE_RETURN_IF_ERROR(spool_->Append(spool_.MakeGroup(256 << 10, kPayloadBytes)));
      while (cursor->next_lsn() <= spool_->end().lsn) {
        const int64_t start = NowNanos();
        TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedBatch batch, cursor->Next(batch_bytes));
        const int64_t read = NowNanos();
        nanos += read - start;
        std::memcpy(copy.data(), batch.bytes.data(), std::min(copy.size(), batch.bytes.size()));
        copy_nanos += NowNanos() - read;
        bytes += batch.bytes.size();
      }
    }
    const double micros = static_cast<double>(nanos) / 1e3;
    rates.push_back(static_cast<double>(bytes) / micros);
    records.push_back(static_cast<double>(cursor->next_lsn() - first) / micros);
    copies.push_back(static_cast<double>(bytes) / static_cast<double>(copy_nanos) * 1e3);
    ratios.push_back(rates.back() / copies.back());
  }
  Figure figure;
  figure.name = absl::StrCat("behind the writer, ", batch_bytes >> 10, " KiB batches");
  figure.value = Median(rates);
  figure.unit = "MB/s";
  figure.target = Target::AtLeast(kTargetMegabytes);
  figure.spread = Spread(copies);
  figure.limit = "processor: copies of frames";
  figure.details = {{"lowest", Quantile(rates, 0)},
                    {"highest", Highest(rates)},
                    {"M records/s", Median(records)},
                    {"memcpy MB/s", Median(copies)},
                    {"ratio to memcpy", Median(ratios)}};
  report_.Add(std::move(figure));
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureRead(const Settings& settings, Report* report) { return ReadBench(settings, report).Run(); }

}  // namespace towline::bench
