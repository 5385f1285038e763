#include "wal/recovery.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "wal/recovery_table.h"
#include "wal/segment_scan.h"
#include "wal/segment_set.h"

namespace towline::wal {
namespace {

constexpr char kNextAction[] = "nothing was changed; see docs/formats/recovery.md, \"When recovery refuses\"";
constexpr size_t kZeroBytes = 1 << 20;

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status CreateDirectoryDurably(FileSystem& fs, const std::string& path) {
  TOWLINE_RETURN_IF_ERROR(fs.CreateDirectory(path));
  return fs.SyncDirectory(ParentOf(path));
}

class Recovery {
 public:
  Recovery(SpoolEnvironment env, const std::string& directory, const std::string& quarantine_directory,
           const SpoolOptions& options, const RecoveryInputs& inputs, RecoveryReport* report)
      : env_(env),
        directory_(directory),
        quarantine_directory_(quarantine_directory),
        options_(options),
        inputs_(inputs),
        report_(*report),
        first_retained_(std::max(inputs.first_retained, inputs.base.lsn + 1)) {}

  absl::StatusOr<RecoveredLog> Run();

 private:
  struct Entry {
    std::string name;
    FileName parsed;
  };

  // --- Looking: changes nothing but creates the directory ---
  absl::Status ListDirectory();
  absl::Status SortFiles();
  absl::StatusOr<bool> IsUsableSpare(const std::string& path);
  absl::Status ReadSegments();
  absl::Status CheckSealed() const;
  absl::Status CheckOldest(const SegmentFile& oldest) const;
  absl::Status CheckOrigin(const SegmentFile& segment) const;
  absl::Status ScanNewest();
  void RaiseWatermark(Lsn lsn, absl::string_view source);
  absl::Status Corrupt(const LogRow& row) const;

  // --- Acting ---
  absl::Status RepairNewest(LogVerdict verdict);
  absl::Status Quarantine();
  absl::Status RewriteAboveWatermark();
  absl::Status RemoveFiles();
  void FillSegments();
  void Report(const LogRow& row);

  const SpoolEnvironment env_;
  const std::string& directory_;
  const std::string& quarantine_directory_;
  const SpoolOptions& options_;
  const RecoveryInputs& inputs_;
  RecoveryReport& report_;
  const Lsn first_retained_;

  std::vector<Entry> entries_;
  std::vector<Lsn> segment_lsns_;       // by name, those that stay
  std::vector<std::string> removable_;  // names
  std::vector<SegmentFile> segments_;   // as far as their headers are whole
  LogFindings findings_;
  std::string newest_bytes_;
  SegmentScan scan_;
  RecoveredLog log_;
};

absl::StatusOr<RecoveredLog> Recovery::Run() {
  TOWLINE_RETURN_IF_ERROR(ListDirectory());
  TOWLINE_RETURN_IF_ERROR(SortFiles());
  TOWLINE_RETURN_IF_ERROR(ReadSegments());
  findings_.has_segment = !segment_lsns_.empty();
  findings_.end_lsn = inputs_.base.lsn;
  for (const Watermark& watermark : inputs_.watermarks) RaiseWatermark(watermark.lsn, watermark.source);
  RaiseWatermark(first_retained_ - 1, "first_retained");
  findings_.sealed_damage = CheckSealed();
  if (findings_.sealed_damage.ok() && findings_.has_segment) {
    if (segments_.size() > 1) RaiseWatermark(segments_.back().header.before.lsn, "sealed_segments");
    TOWLINE_RETURN_IF_ERROR(ScanNewest());
  }
  if (Failpoint("wal_truncate_below_watermark")) findings_.watermark = 0;
  const LogRow& row = MatchLogRow(findings_);
  if (row.verdict == LogVerdict::kCorrupt) return Corrupt(row);

  if (findings_.has_segment) TOWLINE_RETURN_IF_ERROR(RepairNewest(row.verdict));
  TOWLINE_RETURN_IF_ERROR(RemoveFiles());
  // A name that is seen need not be durable: the process that gave it may have died before its sync. That goes for the
  // directory's own name as well.
  TOWLINE_RETURN_IF_ERROR(env_.fs.SyncDirectory(directory_));
  TOWLINE_RETURN_IF_ERROR(env_.fs.SyncDirectory(ParentOf(directory_)));
  FillSegments();
  Report(row);
  return std::move(log_);
}

absl::Status Recovery::ListDirectory() {
  absl::StatusOr<std::vector<std::string>> names = env_.fs.List(directory_);
  if (absl::IsNotFound(names.status())) {
    TOWLINE_RETURN_IF_ERROR(env_.fs.CreateDirectory(directory_));
    names = std::vector<std::string>();
  }
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) entries_.push_back({name, ParseFileName(name)});
  return absl::OkStatus();
}

absl::Status Recovery::SortFiles() {
  std::vector<Lsn> all;  // names sort as numbers do
  for (const Entry& entry : entries_) {
    if (entry.parsed.kind == FileKind::kSegment) all.push_back(entry.parsed.number);
    if (entry.parsed.kind == FileKind::kSpare || entry.parsed.kind == FileKind::kTmp) {
      log_.last_number = std::max(log_.last_number, entry.parsed.number);
    }
  }
  // A segment ends where the next one begins.
  for (size_t i = 0; i < all.size(); ++i) {
    if (i + 1 == all.size() || all[i + 1] > first_retained_) segment_lsns_.push_back(all[i]);
  }
  for (const Entry& entry : entries_) {
    FileFindings file;
    file.kind = entry.parsed.kind;
    const bool stays = std::binary_search(segment_lsns_.begin(), segment_lsns_.end(), entry.parsed.number);
    file.below_first_retained = !stays;
    file.has_segment = stays;
    file.newest = !all.empty() && entry.parsed.number == all.back();
    if (file.kind == FileKind::kSpare) {
      TOWLINE_ASSIGN_OR_RETURN(file.usable, IsUsableSpare(JoinPath(directory_, entry.name)));
    }
    const FileRow& row = MatchFileRow(file);
    if (row.verdict == FileVerdict::kRemove) removable_.push_back(entry.name);
    env_.logger.Log(row.verdict == FileVerdict::kLeave ? LogLevel::kWarning : LogLevel::kDebug, "wal_file",
                    {{"file", JoinPath(directory_, entry.name)}, {"row", row.name}});
    if (file.kind == FileKind::kSpare && file.usable) log_.spares.push_back(JoinPath(directory_, entry.name));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Recovery::IsUsableSpare(const std::string& path) {
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t links, env_.fs.LinkCount(path));
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, env_.fs.Open(path, OpenMode::kRead));
  TOWLINE_ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  return links == 1 && size == options_.segment_bytes;
}

absl::Status Recovery::ReadSegments() {
  for (const Lsn lsn : segment_lsns_) {
    TOWLINE_ASSIGN_OR_RETURN(SegmentFile segment, ReadSegmentFile(env_.fs, directory_, lsn));
    segments_.push_back(std::move(segment));
  }
  return absl::OkStatus();
}

absl::Status Recovery::CheckSealed() const {
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentFile& segment = segments_[i];
    const bool newest = i + 1 == segments_.size();
    if (!segment.header_status.ok()) return newest ? absl::OkStatus() : segment.header_status;
    TOWLINE_RETURN_IF_ERROR(CheckOrigin(segment));
    TOWLINE_RETURN_IF_ERROR(i == 0 ? CheckOldest(segment) : CheckLink(segments_[i - 1], segment));
    if (!newest) TOWLINE_RETURN_IF_ERROR(segment.footer_status);
  }
  return absl::OkStatus();
}

absl::Status Recovery::CheckOldest(const SegmentFile& oldest) const {
  const Lsn first = oldest.header.first_lsn();
  const auto corrupt = [&](const std::string& what, Lsn lsn) {
    return PlaceError(absl::StatusCode::kDataLoss, "wal_corrupt", what, oldest.path, 0, lsn);
  };
  if (first > first_retained_) {
    return corrupt(absl::StrCat("gap: the oldest segment begins with LSN ", first, ", the first retained LSN is ",
                                first_retained_),
                   first_retained_);
  }
  const Position& base = inputs_.base;
  if (first <= base.lsn) {
    return corrupt(absl::StrCat("it begins in front of the spool's own first LSN ", base.lsn + 1), first);
  }
  const LogEnd& before = oldest.header.before;
  if (first == base.lsn + 1 && (before.chain != base.chain || before.term != base.term)) {
    return corrupt(absl::StrCat("it does not continue the base at LSN ", base.lsn), first);
  }
  return absl::OkStatus();
}

absl::Status Recovery::CheckOrigin(const SegmentFile& segment) const {
  const SegmentHeader& header = segment.header;
  std::string what;
  if (header.cluster_id != inputs_.cluster_id) {
    what = absl::StrCat("it belongs to cluster ", header.cluster_id, ", not to ", inputs_.cluster_id);
  } else if (header.generation > inputs_.generation) {
    what = absl::StrCat("generation ", header.generation, " created it, this is generation ", inputs_.generation);
  } else {
    return absl::OkStatus();
  }
  return PlaceError(absl::StatusCode::kDataLoss, "wal_corrupt", what, segment.path, 0, segment.name_lsn);
}

absl::Status Recovery::ScanNewest() {
  const SegmentFile& newest = segments_.back();
  findings_.newest_header_damage = newest.header_status;
  if (!newest.header_status.ok()) return absl::OkStatus();
  TOWLINE_ASSIGN_OR_RETURN(newest_bytes_, ReadFile(env_.fs, newest.path));
  if (newest_bytes_.size() != newest.file_size) {
    findings_.newest_header_damage = PlaceError(absl::StatusCode::kDataLoss, "wal_corrupt", "the file ends early",
                                                newest.path, newest_bytes_.size(), newest.name_lsn);
    return absl::OkStatus();
  }
  scan_ = ScanSegment(newest_bytes_, newest.header, options_.index_interval_bytes);
  RaiseWatermark(scan_.stamp, "stamp");
  findings_.end_lsn = scan_.end.lsn;
  findings_.footer = scan_.footer;
  findings_.torn = scan_.torn();
  return absl::OkStatus();
}

void Recovery::RaiseWatermark(Lsn lsn, absl::string_view source) {
  if (lsn <= findings_.watermark && !report_.watermark_source.empty()) return;
  findings_.watermark = lsn;
  report_.watermark_source = std::string(source);
}

absl::Status Recovery::Corrupt(const LogRow& row) const {
  ErrorInfo info;
  info.reason = "wal_corrupt";
  if (!findings_.sealed_damage.ok()) {
    info = GetErrorInfo(findings_.sealed_damage);
  } else if (!findings_.newest_header_damage.ok()) {
    info = GetErrorInfo(findings_.newest_header_damage);
  } else {
    const std::string path = findings_.has_segment ? segments_.back().path : directory_;
    const uint64_t offset = findings_.has_segment ? scan_.end_offset : 0;
    info = GetErrorInfo(
        PlaceError(absl::StatusCode::kDataLoss, "wal_corrupt",
                   absl::StrCat(row.what, "; the log ends with LSN ", findings_.end_lsn, ", the watermark is ",
                                findings_.watermark, " (", report_.watermark_source, ")"),
                   path, offset, findings_.end_lsn + 1));
  }
  info.next_action = kNextAction;
  info.metadata["row"] = row.name;
  info.metadata["watermark"] = absl::StrCat(findings_.watermark);
  info.metadata["watermark_source"] = report_.watermark_source;
  return MakeError(absl::StatusCode::kDataLoss, std::move(info));
}

absl::Status Recovery::RepairNewest(LogVerdict verdict) {
  const SegmentFile& newest = segments_.back();
  if (verdict == LogVerdict::kCutTail) TOWLINE_RETURN_IF_ERROR(Quarantine());
  TOWLINE_ASSIGN_OR_RETURN(log_.newest_file, env_.fs.Open(newest.path, OpenMode::kReadWrite));
  bool written = false;
  const uint64_t torn_end = Failpoint("wal_keep_after_hole") ? scan_.end_offset : scan_.torn_end;
  for (uint64_t offset = scan_.end_offset; offset < torn_end; offset += kZeroBytes) {
    const std::string zeros(static_cast<size_t>(std::min<uint64_t>(kZeroBytes, scan_.torn_end - offset)), '\0');
    TOWLINE_RETURN_IF_ERROR(log_.newest_file->WriteAt(offset, zeros));
    written = true;
  }
  if (scan_.end.lsn > findings_.watermark) {
    TOWLINE_RETURN_IF_ERROR(RewriteAboveWatermark());
    written = true;
  }
  log_.footer_written = verdict == LogVerdict::kCreateNext;
  if (log_.footer_written) {
    // As the frames above the watermark: it may never have been durable.
    const uint64_t offset = FramesEnd(newest.file_size);
    TOWLINE_RETURN_IF_ERROR(log_.newest_file->WriteAt(offset, absl::string_view(newest_bytes_).substr(offset)));
    written = true;
  }
  return written ? log_.newest_file->SyncData() : absl::OkStatus();
}

absl::Status Recovery::Quarantine() {
  TOWLINE_RETURN_IF_ERROR(CreateDirectoryDurably(env_.fs, quarantine_directory_));
  const absl::string_view torn =
      absl::string_view(newest_bytes_).substr(scan_.end_offset, scan_.torn_end - scan_.end_offset);
  // torn-<generation>-<first LSN>-<running number>.frames; nothing is ever overwritten.
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, env_.fs.List(quarantine_directory_));
  const std::string stem =
      absl::StrCat("torn-", inputs_.generation, "-", absl::Dec(scan_.end.lsn + 1, absl::kZeroPad20), "-");
  size_t number = 1;
  for (const std::string& name : names) number += absl::StartsWith(name, stem) ? 1 : 0;
  std::string name = absl::StrCat(stem, number, ".frames");
  while (std::binary_search(names.begin(), names.end(), name)) name = absl::StrCat(stem, ++number, ".frames");
  TOWLINE_RETURN_IF_ERROR(WriteFileDurably(env_.fs, quarantine_directory_, name, torn));
  report_.quarantine_file = JoinPath(quarantine_directory_, name);
  report_.quarantined_bytes = torn.size();
  return absl::OkStatus();
}

absl::Status Recovery::RewriteAboveWatermark() {
  const SegmentHeader& header = segments_.back().header;
  const Lsn first = std::max(findings_.watermark + 1, header.first_lsn());
  const uint64_t offset = OffsetInScan(newest_bytes_, header, scan_, first);
  report_.rewritten_records = scan_.end.lsn - first + 1;
  return log_.newest_file->WriteAt(offset, absl::string_view(newest_bytes_).substr(offset, scan_.end_offset - offset));
}

absl::Status Recovery::RemoveFiles() {
  for (const std::string& name : removable_) {
    TOWLINE_RETURN_IF_ERROR(env_.fs.Remove(JoinPath(directory_, name)));
  }
  return absl::OkStatus();
}

void Recovery::FillSegments() {
  uint64_t log_start = 0;
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentFile& file = segments_[i];
    SegmentSpan span;
    span.sealed = i + 1 < segments_.size();
    span.end = span.sealed ? file.footer.end : scan_.end;
    span.end_offset = span.sealed ? file.footer.end_offset : scan_.end_offset;
    span.segment = std::make_shared<Segment>(env_.fs, directory_, file.header, log_start);
    log_start += span.frame_bytes();
    log_.segments.push_back(std::move(span));
  }
  log_.newest_index = std::move(scan_.index);
}

void Recovery::Report(const LogRow& row) {
  report_.row = row.name;
  report_.watermark = findings_.watermark;
  report_.end = findings_.has_segment ? scan_.end : LogEnd{inputs_.base.lsn, inputs_.base.term, inputs_.base.chain, 0};
  report_.segments = segments_.size();
  report_.term_starts = std::move(scan_.term_starts);
  env_.logger.Log(LogLevel::kInfo, "wal_recovered",
                  {{"directory", directory_},
                   {"row", report_.row},
                   {"end_lsn", report_.end.lsn},
                   {"watermark", report_.watermark},
                   {"watermark_source", report_.watermark_source},
                   {"rewritten_records", report_.rewritten_records},
                   {"quarantined_bytes", report_.quarantined_bytes},
                   {"segments", report_.segments}});
}

}  // namespace

absl::StatusOr<RecoveredLog> RecoverLog(SpoolEnvironment env, const std::string& directory,
                                        const std::string& quarantine_directory, const SpoolOptions& options,
                                        const RecoveryInputs& inputs, RecoveryReport* report) {
  *report = RecoveryReport();
  return Recovery(env, directory, quarantine_directory, options, inputs, report).Run();
}

}  // namespace towline::wal
