// Open time and memory by number of segments. Sealed segments are made by hand: a header, a footer and a hole of 64 MiB
// between them, so that thousands take little disk; that is all that recovery reads of them. Each has an index file of
// the usual size. The newest segment is full of real frames, which recovery reads and checks one by one.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "tests/bench/wal_bench_machine.h"
#include "tests/bench/wal_bench_report.h"
#include "tests/bench/wal_bench_spool.h"
#include "wal/index.h"
#include "wal/local_frame.h"
#include "wal/segment_format.h"

namespace towline::bench {
namespace {

constexpr Lsn kRecordsPerSegment = 1000000;
constexpr size_t kPayloadBytes = 256;
constexpr double kTargetMillisPerSegment = 0.2;

class OpenBench {
 public:
  OpenBench(const Settings& settings, Report* report)
      : settings_(settings), report_(*report), segment_bytes_(settings.Pick<uint64_t>(1 << 20, 64 << 20, 64 << 20)) {}

  absl::Status Run();

 private:
  // Open times in milliseconds.
  struct Times {
    std::vector<double> cold;
    std::vector<double> warm;
    double cold_disk_kib = 0;
  };

  absl::Status MakeSegments(const std::string& directory, size_t count);
  absl::Status MakeSealed(const std::string& directory, const wal::LogEnd& before, const wal::LogEnd& end);
  absl::Status MakeNewest(const std::string& directory, const wal::LogEnd& before);
  absl::StatusOr<std::unique_ptr<File>> CreateSegment(const std::string& directory, const wal::LogEnd& before);
  wal::SegmentHeader Header(const wal::LogEnd& before) const;
  static wal::LogEnd EndOf(size_t segments);

  absl::StatusOr<Times> Measure(BenchSpool* spool);
  absl::Status Memory(BenchSpool* spool, size_t segments);
  void Add(const std::string& state, size_t segments, const std::vector<double>& millis, double base, double kib);

  const Settings& settings_;
  Report& report_;
  const uint64_t segment_bytes_;
  size_t base_segments_ = 0;
  double cold_base_ = 0;  // open time of the smallest log
  double warm_base_ = 0;
};

absl::Status OpenBench::Run() {
  const std::vector<size_t> counts =
      settings_.Pick<std::vector<size_t>>({3, 6}, {16, 256, 1024}, {16, 256, 1024, 4096});
  for (const size_t count : counts) {
    // A page or two for each header, footer and inode, and the index.
    TOWLINE_RETURN_IF_ERROR(NeedSpace(settings_.directory, count * (64 << 10) + (1ull << 30)));
    wal::SpoolOptions options;
    options.segment_bytes = segment_bytes_;
    options.spare_segments = 0;
    BenchSpool spool(JoinPath(settings_.directory, "open"), options);
    TOWLINE_RETURN_IF_ERROR(PosixFileSystem()->CreateDirectory(JoinPath(settings_.directory, "open")));
    TOWLINE_RETURN_IF_ERROR(PosixFileSystem()->CreateDirectory(spool.directory()));
    TOWLINE_RETURN_IF_ERROR(MakeSegments(spool.directory(), count));
    TOWLINE_ASSIGN_OR_RETURN(const Times times, Measure(&spool));
    if (count == counts.front()) {
      base_segments_ = count;
      cold_base_ = Median(times.cold);
      warm_base_ = Median(times.warm);
    }
    Add("cold", count, times.cold, cold_base_, times.cold_disk_kib);
    Add("warm", count, times.warm, warm_base_, 0);
    TOWLINE_RETURN_IF_ERROR(Memory(&spool, count));
  }
  return absl::OkStatus();
}

wal::LogEnd OpenBench::EndOf(size_t segments) {
  const Lsn lsn = segments * kRecordsPerSegment;
  return segments == 0 ? wal::LogEnd() : wal::LogEnd{lsn, 1, 0x9e3779b97f4a7c15 * lsn, static_cast<int64_t>(lsn)};
}

wal::SegmentHeader OpenBench::Header(const wal::LogEnd& before) const {
  wal::SegmentHeader header;
  header.cluster_id = std::string(kClusterIdSize, 'b');
  header.generation = 1;
  header.before = before;
  header.salt = before.lsn * 31 + 7;
  header.file_size = segment_bytes_;
  return header;
}

absl::Status OpenBench::MakeSegments(const std::string& directory, size_t count) {
  for (size_t i = 0; i + 1 < count; ++i) TOWLINE_RETURN_IF_ERROR(MakeSealed(directory, EndOf(i), EndOf(i + 1)));
  return MakeNewest(directory, EndOf(count - 1));
}

absl::StatusOr<std::unique_ptr<File>> OpenBench::CreateSegment(const std::string& directory,
                                                               const wal::LogEnd& before) {
  const std::string path = JoinPath(directory, wal::SegmentFileName(before.lsn + 1));
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<File> file, PosixFileSystem()->Open(path, OpenMode::kCreate));
  TOWLINE_RETURN_IF_ERROR(file->Truncate(segment_bytes_));
  TOWLINE_RETURN_IF_ERROR(file->WriteAt(0, wal::EncodeSegmentHeader(Header(before))));
  return file;
}

absl::Status OpenBench::MakeSealed(const std::string& directory, const wal::LogEnd& before, const wal::LogEnd& end) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, CreateSegment(directory, before));
  wal::SegmentFooter footer;
  footer.first_lsn = before.lsn + 1;
  footer.records = end.lsn - before.lsn;
  footer.end = end;
  footer.end_offset = wal::FramesEnd(segment_bytes_);
  footer.salt = Header(before).salt;
  TOWLINE_RETURN_IF_ERROR(file->WriteAt(footer.end_offset, wal::EncodeSegmentFooter(footer)));

  wal::IndexEntries entries;
  const uint64_t interval = wal::SpoolOptions().index_interval_bytes;
  const uint64_t count = (footer.end_offset - wal::kFramesStart) / interval;
  for (uint64_t i = 0; i < count; ++i) {
    const Lsn lsn = footer.first_lsn + i * footer.records / count;
    entries.push_back({lsn, static_cast<int64_t>(lsn), wal::kFramesStart + i * interval, lsn});
  }
  const wal::IndexOwner owner{footer.first_lsn, end.lsn, footer.salt, footer.end_offset};
  TOWLINE_ASSIGN_OR_RETURN(
      const std::unique_ptr<File> index,
      PosixFileSystem()->Open(JoinPath(directory, wal::IndexFileName(owner.first_lsn)), OpenMode::kCreate));
  return index->WriteAt(0, wal::EncodeIndex(owner, entries));
}

absl::Status OpenBench::MakeNewest(const std::string& directory, const wal::LogEnd& before) {
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, CreateSegment(directory, before));
  const std::string payload(kPayloadBytes, 'p');
  const uint32_t crc = Crc32c(payload);
  wal::GroupBuilder builder(before);
  while (wal::kFramesStart + builder.bytes() + wal::FrameSize(kPayloadBytes) <= wal::FramesEnd(segment_bytes_)) {
    builder.Add(wal::RecordType::kBatch, 1, 1, payload, crc);
  }
  const std::shared_ptr<wal::FrameGroup> group = builder.Finish();
  const uint64_t salt = Header(before).salt;
  for (const auto& ref : group->frames) wal::FillLocalPart(before.lsn, salt, group->bytes.data() + ref.offset);
  return file->WriteAt(wal::kFramesStart, group->bytes);
}

absl::StatusOr<OpenBench::Times> OpenBench::Measure(BenchSpool* spool) {
  Times times;
  std::vector<double> kib;
  for (int i = 0; i < settings_.Pick(1, 7, 7); ++i) {
    spool->Close();
    TOWLINE_RETURN_IF_ERROR(spool->DropCache().status());
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t before, DiskReadBytes());
    int64_t start = NowNanos();
    TOWLINE_RETURN_IF_ERROR(spool->Open());
    times.cold.push_back(static_cast<double>(NowNanos() - start) / 1e6);
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t after, DiskReadBytes());
    kib.push_back(static_cast<double>(after - before) / 1024);
    spool->Close();
    start = NowNanos();
    TOWLINE_RETURN_IF_ERROR(spool->Open());
    times.warm.push_back(static_cast<double>(NowNanos() - start) / 1e6);
  }
  times.cold_disk_kib = Median(kib);
  return times;
}

void OpenBench::Add(const std::string& state, size_t segments, const std::vector<double>& millis, double base,
                    double kib) {
  const double more = static_cast<double>(segments - base_segments_);
  const double allowed = base + kTargetMillisPerSegment * more;
  Figure figure;
  figure.name = absl::StrCat("open of ", segments, " segments, ", state);
  figure.value = Median(millis);
  figure.unit = "ms";
  figure.target = more > 0 ? Target::AtMost(allowed) : Target::None();
  figure.limit = state == "cold" ? "disk: two small reads per segment, the newest one whole"
                                 : "processor: check of the newest segment";
  figure.details = {{"lowest", Quantile(millis, 0)}, {"highest", Highest(millis)}};
  if (more > 0) figure.details.emplace_back("ms/segment", (figure.value - base) / more);
  if (kib > 0) figure.details.emplace_back("disk KiB", kib);
  report_.Add(std::move(figure));
}

// What the segments take after the open, and what their indexes take when every one of them was looked into.
absl::Status OpenBench::Memory(BenchSpool* spool, size_t segments) {
  spool->Close();
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t closed, ResidentMemory());
  TOWLINE_RETURN_IF_ERROR(spool->Open());
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t opened, ResidentMemory());
  for (size_t i = 0; i + 1 < segments; ++i) (*spool)->BytesBehind(EndOf(i).lsn + kRecordsPerSegment / 2);
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t sought, ResidentMemory());
  const double mib = 1 << 20;
  const double per_thousand = 1000 / static_cast<double>(segments);
  const double cache = static_cast<double>(spool->options().index_cache_bytes) / mib;
  Figure figure;
  figure.name = absl::StrCat("memory after open of ", segments, " segments");
  figure.value = (static_cast<double>(opened) - static_cast<double>(closed)) / mib;
  figure.unit = "MiB";
  figure.details = {{"per 1,000 segments", figure.value * per_thousand}};
  report_.Add(std::move(figure));
  Figure lookups;
  lookups.name = absl::StrCat("memory of index lookups in ", segments, " segments");
  lookups.value = (static_cast<double>(sought) - static_cast<double>(opened)) / mib;
  lookups.unit = "MiB";
  lookups.target = Target::AtMost(cache * 1.1 + 1);
  lookups.limit = "index_cache_bytes";
  lookups.details = {{"index_cache_bytes MiB", cache}};
  report_.Add(std::move(lookups));
  return absl::OkStatus();
}

}  // namespace

absl::Status MeasureOpen(const Settings& settings, Report* report) { return OpenBench(settings, report).Run(); }

}  // namespace towline::bench
