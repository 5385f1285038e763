#include "wal/inspect.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "wal/damage_list.h"
#include "wal/frame_reader.h"
#include "wal/index.h"
#include "wal/segment_scan.h"
#include "wal/segment_set.h"

namespace towline::wal {
namespace {

// A running node may append between two reads of its newest segment; each read sees more than the one before it.
constexpr int kReadsMax = 5;

struct Names {
  std::vector<Lsn> segments;  // by first LSN
  std::set<Lsn> indexes;
  uint64_t spares = 0;
};

absl::StatusOr<Names> ListNames(FileSystem& fs, const std::string& directory) {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> all, fs.List(directory));
  Names names;
  for (const std::string& name : all) {
    const FileName parsed = ParseFileName(name);
    if (parsed.kind == FileKind::kSegment) names.segments.push_back(parsed.number);
    if (parsed.kind == FileKind::kIndex) names.indexes.insert(parsed.number);
    if (parsed.kind == FileKind::kSpare) ++names.spares;
  }
  return names;
}

SegmentSpan SpanOf(FileSystem& fs, const std::string& directory, const SegmentFile& file, const LogEnd& end,
                   uint64_t end_offset) {
  return {std::make_shared<Segment>(fs, directory, file.header, 0), end, end_offset, false};
}

Damage DamageOf(const absl::Status& status) {
  const DamagedRange range = RangeOf(status);
  return {range.file, range.offset, range.first_lsn, range.what};
}

// The scan of a newest segment, and what a later frame proves to be missing.
struct NewestScan {
  std::string bytes;
  SegmentScan scan;
  absl::Status damage;
};

absl::StatusOr<NewestScan> ScanNewest(FileSystem& fs, const SegmentFile& file) {
  NewestScan newest;
  uint64_t last_end = 0;
  for (int i = 0; i < kReadsMax; ++i) {
    TOWLINE_ASSIGN_OR_RETURN(newest.bytes, ReadFile(fs, file.path));
    if (newest.bytes.size() != file.file_size) return absl::NotFoundError(file.path);  // it became another file
    newest.scan = ScanSegment(newest.bytes, file.header, UINT64_MAX / 2);
    const bool proved = newest.scan.stamp > newest.scan.end.lsn;
    if (!proved && newest.scan.footer != FooterState::kContradicted) return newest;
    // Reads are not atomic: the missing part may have been written while the file was read.
    if (newest.scan.end_offset == last_end) break;
    last_end = newest.scan.end_offset;
  }
  newest.damage = PlaceError(absl::StatusCode::kDataLoss, "wal_damaged",
                             newest.scan.stamp > newest.scan.end.lsn
                                 ? absl::StrCat("a later frame proves that LSN ", newest.scan.stamp, " was durable")
                                 : std::string("the footer contradicts the frames"),
                             file.path, newest.scan.end_offset, newest.scan.end.lsn + 1);
  return newest;
}

int64_t FirstTime(FileSystem& fs, const SegmentFile& segment) {
  const absl::StatusOr<std::unique_ptr<File>> file = fs.Open(segment.path, OpenMode::kRead);
  if (!file.ok()) return 0;
  std::string bytes(kFrameHeaderSize, '\0');
  if (!(*file)->ReadAt(kFramesStart, bytes.size(), bytes.data()).ok()) return 0;
  LocalFrame frame;
  if (CheckFrame(bytes, segment.header.salt, &frame) == FrameCheck::kNoFrame) return 0;
  return frame.frame.header.commit_time_us;
}

uint64_t TailBytes(absl::string_view file, uint64_t end_offset) {
  const size_t last = file.substr(0, FramesEnd(file.size())).find_last_not_of('\0');
  return last == absl::string_view::npos || last < end_offset ? 0 : last + 1 - end_offset;
}

// Header, footer and link of a segment.
absl::Status CheckFrames(const SegmentFile* before, const SegmentFile& segment, bool newest) {
  TOWLINE_RETURN_IF_ERROR(segment.header_status);
  if (before != nullptr && before->footer_status.ok()) TOWLINE_RETURN_IF_ERROR(CheckLink(*before, segment));
  return newest ? absl::OkStatus() : segment.footer_status;
}

// Reads the segments of a directory that does not stand still: what pruning takes away meanwhile is left out, and with it
// what was read of older ones, which went first.
absl::StatusOr<std::vector<SegmentFile>> ReadSegments(FileSystem& fs, const std::string& directory,
                                                      const Names& names) {
  std::vector<SegmentFile> segments;
  for (const Lsn lsn : names.segments) {
    absl::StatusOr<SegmentFile> segment = ReadSegmentFile(fs, directory, lsn);
    const bool gone = absl::IsNotFound(segment.status()) ||
                      (segment.ok() && !segment->header_status.ok() && !Exists(fs, segment->path));
    if (gone) {
      segments.clear();
      continue;
    }
    if (!segment.ok()) return segment.status();
    segments.push_back(*std::move(segment));
  }
  return segments;
}

// The index of a sealed segment. Empty if it is absent or unusable; *damage then says what is wrong with it.
IndexEntries LoadIndex(FileSystem& fs, const std::string& directory, const SegmentFile& segment, absl::Status* damage) {
  IndexEntries entries;
  const std::string path = JoinPath(directory, IndexFileName(segment.name_lsn));
  const absl::StatusOr<std::string> bytes = ReadFile(fs, path);
  if (!bytes.ok()) return entries;
  const IndexOwner owner{segment.name_lsn, segment.footer.end.lsn, segment.header.salt, segment.footer.end_offset};
  std::string what;
  if (!DecodeIndex(*bytes, owner, &entries, &what)) {
    entries.clear();
    if (damage != nullptr) *damage = PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", what, path, 0, 0);
  }
  return entries;
}

// Where to start reading for a range: the records in front are not needed, so damage there does not matter.
std::optional<IndexEntry> StartOf(const IndexEntries& index, const DumpRange& range) {
  if (index.empty()) return std::nullopt;
  IndexEntry start = index.front();
  if (range.first > start.lsn) start = FloorOfLsn(index, range.first);
  const IndexEntry& by_time = FloorOfTime(index, range.since_us);
  return by_time.lsn > start.lsn ? by_time : start;
}

// True once the range has ended.
absl::StatusOr<bool> DumpSegment(const SegmentSpan& span, const IndexEntries& index, const DumpRange& range,
                                 const std::function<absl::Status(const DumpedFrame&)>& fn) {
  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, span.segment->OpenFile());
  std::string buffer;
  std::optional<FrameReader> reader;
  const auto restart = [&](uint64_t offset, const LogEnd& before) {
    reader.emplace(*file, span, offset, before, kReadBytesMax, &buffer);
  };
  const std::optional<IndexEntry> start = StartOf(index, range);
  if (start.has_value()) restart(start->offset, FrameReader::UnknownTerm(*start));
  // An index is never trusted over the log.
  if (!start.has_value() || !reader->Next().ok()) {
    restart(kFramesStart, span.segment->header().before);
  } else {
    restart(start->offset, FrameReader::UnknownTerm(*start));
  }
  while (true) {
    const uint64_t offset = reader->offset();
    TOWLINE_ASSIGN_OR_RETURN(const LocalFrame* const frame, reader->Next());
    if (frame == nullptr) return false;
    const ShippedHeader& header = frame->frame.header;
    if (header.lsn < range.first || header.commit_time_us < range.since_us) continue;
    if (header.lsn > range.last || header.commit_time_us >= range.until_us) return true;
    TOWLINE_RETURN_IF_ERROR(fn({frame->frame, frame->stamp, span.segment->path(), offset}));
    if (header.lsn == range.last) return true;
  }
}

// Verifies one segment after the other.
class Verifier {
 public:
  Verifier(FileSystem& fs, const std::string& directory) : fs_(fs), directory_(directory) {}

  absl::StatusOr<VerifyReport> Run();

 private:
  absl::Status VerifySegment(const SegmentFile& segment, const absl::Status& frame, bool newest);
  // Reads the frames and compares them with the index entries.
  void ReadFrames(const SegmentFile& segment, const LogEnd& end, uint64_t end_offset, bool sealed);
  void Add(const SegmentFile& segment, const absl::Status& damage);

  FileSystem& fs_;
  const std::string& directory_;
  Names names_;
  VerifyReport report_;
};

absl::StatusOr<VerifyReport> Verifier::Run() {
  TOWLINE_ASSIGN_OR_RETURN(names_, ListNames(fs_, directory_));
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<SegmentFile> segments, ReadSegments(fs_, directory_, names_));
  for (size_t i = 0; i < segments.size(); ++i) {
    const bool newest = i + 1 == segments.size();
    const absl::Status frame = CheckFrames(i == 0 ? nullptr : &segments[i - 1], segments[i], newest);
    TOWLINE_RETURN_IF_ERROR(VerifySegment(segments[i], frame, newest));
  }
  return std::move(report_);
}

absl::Status Verifier::VerifySegment(const SegmentFile& segment, const absl::Status& frame, bool newest) {
  ++report_.segments;
  if (!frame.ok()) Add(segment, frame);
  if (!segment.header_status.ok()) return absl::OkStatus();
  if (!newest && segment.footer_status.ok()) {
    ReadFrames(segment, segment.footer.end, segment.footer.end_offset, true);
    return absl::OkStatus();
  }
  absl::StatusOr<NewestScan> scanned = ScanNewest(fs_, segment);
  if (absl::IsNotFound(scanned.status())) return absl::OkStatus();
  if (!scanned.ok()) return scanned.status();
  if (!scanned->damage.ok()) Add(segment, scanned->damage);
  report_.end = Damage{segment.path, scanned->scan.end_offset, scanned->scan.end.lsn + 1, ""};
  ReadFrames(segment, scanned->scan.end, scanned->scan.end_offset, false);
  return absl::OkStatus();
}

void Verifier::ReadFrames(const SegmentFile& segment, const LogEnd& end, uint64_t end_offset, bool sealed) {
  const SegmentSpan span = SpanOf(fs_, directory_, segment, end, end_offset);
  IndexEntries index;
  if (sealed && names_.indexes.count(segment.name_lsn) > 0) {
    absl::Status damage;
    index = LoadIndex(fs_, directory_, segment, &damage);
    if (!damage.ok()) Add(segment, damage);
  }
  size_t next_entry = 0;
  const absl::StatusOr<std::shared_ptr<File>> file = span.segment->OpenFile();
  if (!file.ok()) return;  // removed meanwhile
  std::string buffer;
  std::optional<FrameReader> reader;
  reader.emplace(**file, span, kFramesStart, segment.header.before, kReadBytesMax, &buffer);
  bool damaged = false;
  while (true) {
    const uint64_t offset = reader->offset();
    const absl::StatusOr<const LocalFrame*> frame = reader->Next();
    if (!frame.ok()) {
      Add(segment, frame.status());
      damaged = true;
      // Behind the damage the index knows the next place where a frame begins.
      const auto next = std::upper_bound(index.begin(), index.end(), reader->position().lsn + 1,
                                         [](Lsn lsn, const IndexEntry& entry) { return lsn < entry.lsn; });
      if (next == index.end()) return;
      reader.emplace(**file, span, next->offset, FrameReader::UnknownTerm(*next), kReadBytesMax, &buffer);
      continue;
    }
    if (*frame == nullptr) break;
    const ShippedHeader& header = (*frame)->frame.header;
    if (report_.records++ == 0) report_.first_lsn = header.lsn;
    report_.bytes += (*frame)->size;
    report_.last_lsn = header.lsn;
    const IndexEntry actual = {header.lsn, header.commit_time_us, offset, header.prev_chain};
    if (next_entry < index.size() && index[next_entry] == actual) ++next_entry;
  }
  if (reader->position() != end) {
    Add(segment,
        PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the frames end differently than the footer says",
                   segment.path, FramesEnd(segment.file_size), reader->position().lsn + 1));
  }
  // Of damaged records the index cannot be checked.
  if (next_entry < index.size() && !damaged) {
    Add(segment, PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the index does not describe the segment",
                            JoinPath(directory_, IndexFileName(segment.name_lsn)),
                            kIndexHeaderSize + next_entry * kIndexEntrySize, 0));
  }
}

void Verifier::Add(const SegmentFile& segment, const absl::Status& damage) {
  if (Exists(fs_, segment.path)) report_.damages.push_back(DamageOf(damage));
}

}  // namespace

absl::StatusOr<SpoolInfo> InspectSpool(FileSystem& fs, const std::string& directory) {
  TOWLINE_ASSIGN_OR_RETURN(const Names names, ListNames(fs, directory));
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<SegmentFile> files, ReadSegments(fs, directory, names));
  SpoolInfo info;
  info.spares = names.spares;
  for (size_t i = 0; i < files.size(); ++i) {
    const SegmentFile& file = files[i];
    const bool newest = i + 1 == files.size();
    SegmentInfo segment;
    segment.file = file.path;
    segment.file_bytes = file.file_size;
    segment.first_lsn = file.name_lsn;
    segment.last_lsn = file.name_lsn - 1;
    segment.index_present = names.indexes.count(file.name_lsn) > 0;
    const absl::Status frame = CheckFrames(i == 0 ? nullptr : &files[i - 1], file, newest);
    if (!frame.ok()) segment.damage = GetErrorInfo(frame).message;
    if (file.header_status.ok()) {
      segment.cluster_id = file.header.cluster_id;
      segment.generation = file.header.generation;
      LogEnd end = file.header.before;
      if (!newest && file.footer_status.ok()) {
        segment.sealed = true;
        end = file.footer.end;
        segment.used_bytes = file.footer.end_offset;
      } else {
        absl::StatusOr<NewestScan> scanned = ScanNewest(fs, file);
        if (absl::IsNotFound(scanned.status())) continue;
        if (!scanned.ok()) return scanned.status();
        end = scanned->scan.end;
        segment.used_bytes = scanned->scan.end_offset;
        if (newest) info.tail_bytes = TailBytes(scanned->bytes, scanned->scan.end_offset);
        if (!scanned->damage.ok() && segment.damage.empty()) {
          segment.damage = GetErrorInfo(scanned->damage).message;
        }
      }
      segment.last_lsn = end.lsn;
      segment.records = end.lsn - file.header.before.lsn;
      if (segment.records > 0) {
        segment.first_time_us = FirstTime(fs, file);
        segment.last_time_us = end.commit_time_us;
      }
    }
    info.segments.push_back(std::move(segment));
  }
  return info;
}

absl::StatusOr<VerifyReport> VerifySpool(FileSystem& fs, const std::string& directory, Lsn durable) {
  TOWLINE_ASSIGN_OR_RETURN(VerifyReport report, Verifier(fs, directory).Run());
  if (report.damages.empty() && report.end.has_value() && report.end->lsn <= durable) {
    report.end->what = absl::StrCat("the log ends at LSN ", report.end->lsn - 1, ", but LSN ", durable, " was durable");
    report.damages.push_back(*report.end);
  }
  return report;
}

absl::Status DumpSpool(FileSystem& fs, const std::string& directory, const DumpRange& range,
                       const std::function<absl::Status(const DumpedFrame&)>& fn) {
  TOWLINE_ASSIGN_OR_RETURN(const Names names, ListNames(fs, directory));
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<SegmentFile> files, ReadSegments(fs, directory, names));
  for (size_t i = 0; i < files.size(); ++i) {
    const SegmentFile& file = files[i];
    const bool newest = i + 1 == files.size();
    if (!newest && files[i + 1].name_lsn <= range.first) continue;
    if (file.name_lsn > range.last) break;
    TOWLINE_RETURN_IF_ERROR(CheckFrames(i == 0 ? nullptr : &files[i - 1], file, newest));
    if (!newest && file.footer.end.commit_time_us < range.since_us) continue;
    if (file.header.before.commit_time_us >= range.until_us) break;  // commit times never fall
    LogEnd end = file.footer.end;
    uint64_t end_offset = file.footer.end_offset;
    absl::Status damage_at_end;
    if (newest) {
      TOWLINE_ASSIGN_OR_RETURN(const NewestScan scanned, ScanNewest(fs, file));
      end = scanned.scan.end;
      end_offset = scanned.scan.end_offset;
      damage_at_end = scanned.damage;
    }
    const IndexEntries index = newest ? IndexEntries() : LoadIndex(fs, directory, file, nullptr);
    TOWLINE_ASSIGN_OR_RETURN(const bool ended,
                             DumpSegment(SpanOf(fs, directory, file, end, end_offset), index, range, fn));
    if (ended) return absl::OkStatus();
    TOWLINE_RETURN_IF_ERROR(damage_at_end);
  }
  return absl::OkStatus();
}

}  // namespace towline::wal
