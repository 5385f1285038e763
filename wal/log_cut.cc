#include "wal/log_cut.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "wal/segment_format.h"
#include "wal/segment_scan.h"
#include "wal/segment_set.h"

namespace towline::wal {
namespace {

constexpr uint64_t kWriteBytes = 1 << 20;
constexpr uint64_t kAnyIndexInterval = 1 << 20;  // of a scan whose index only finds the place of one record

// First LSNs of the segments in a directory, rising.
absl::StatusOr<std::vector<Lsn>> ListSegments(FileSystem& fs, const std::string& directory) {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(directory));
  std::vector<Lsn> firsts;
  for (const std::string& name : names) {
    const FileName parsed = ParseFileName(name);
    if (parsed.kind == FileKind::kSegment) firsts.push_back(parsed.number);
  }
  std::sort(firsts.begin(), firsts.end());
  return firsts;
}

absl::Status LinkSegment(FileSystem& fs, const std::string& from, const std::string& to, Lsn first) {
  const std::string name = SegmentFileName(first);
  TOWLINE_RETURN_IF_ERROR(fs.Link(JoinPath(from, name), JoinPath(to, name)));
  const std::string index = IndexFileName(first);
  const absl::Status linked = fs.Link(JoinPath(from, index), JoinPath(to, index));
  return absl::IsNotFound(linked) ? absl::OkStatus() : linked;  // it is built when it is needed
}

// Bytes of the file up to behind record `last`.
absl::StatusOr<std::string> ReadUpTo(FileSystem& fs, const SegmentFile& segment, Lsn last) {
  TOWLINE_RETURN_IF_ERROR(segment.header_status);
  TOWLINE_ASSIGN_OR_RETURN(std::string bytes, ReadFile(fs, segment.path));
  const auto damaged = [&](absl::string_view what, uint64_t offset, Lsn lsn) {
    return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", what, segment.path, offset, lsn);
  };
  if (bytes.size() != segment.file_size) return damaged("the file ends early", bytes.size(), segment.name_lsn);
  const SegmentScan scan = ScanSegment(bytes, segment.header, kAnyIndexInterval);
  if (scan.end.lsn < last) return damaged("the record cannot be read", scan.end_offset, scan.end.lsn + 1);
  bytes.resize(scan.end.lsn == last ? scan.end_offset : OffsetInScan(bytes, segment.header, scan, last + 1));
  return bytes;
}

// The copy is as large as the original and filled with zeros behind the record, as any segment that takes appends.
absl::Status CopySegment(FileSystem& fs, const std::string& from, const std::string& to, Lsn first, Lsn last) {
  TOWLINE_ASSIGN_OR_RETURN(const SegmentFile segment, ReadSegmentFile(fs, from, first));
  TOWLINE_ASSIGN_OR_RETURN(std::string bytes, ReadUpTo(fs, segment, last));
  const std::string path = JoinPath(to, SegmentFileName(first));
  TOWLINE_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, fs.Open(path, OpenMode::kCreate));
  TOWLINE_RETURN_IF_ERROR(file->WriteAt(0, bytes));
  uint64_t offset = bytes.size();
  bytes.assign(kWriteBytes, '\0');
  while (offset < segment.file_size) {
    const uint64_t size = std::min<uint64_t>(bytes.size(), segment.file_size - offset);
    TOWLINE_RETURN_IF_ERROR(file->WriteAt(offset, absl::string_view(bytes).substr(0, static_cast<size_t>(size))));
    offset += size;
  }
  return Failpoint("wal_cut_skip_sync") ? absl::OkStatus() : file->SyncData();
}

}  // namespace

absl::Status CutLog(FileSystem& fs, const std::string& from, const std::string& to, Lsn first, Lsn last) {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<Lsn> firsts, ListSegments(fs, from));
  if (firsts.empty() || firsts.front() > first) {
    return MakeError(absl::StatusCode::kNotFound, "wal_removed",
                     absl::StrCat("the log begins behind LSN ", first, ": ", from));
  }
  for (size_t i = 0; i < firsts.size() && firsts[i] <= last; ++i) {
    const bool newest = i + 1 == firsts.size();
    if (!newest && firsts[i + 1] <= first) continue;
    const bool whole = !newest && firsts[i + 1] - 1 <= last;
    TOWLINE_RETURN_IF_ERROR(whole ? LinkSegment(fs, from, to, firsts[i]) : CopySegment(fs, from, to, firsts[i], last));
  }
  return fs.SyncDirectory(to);
}

}  // namespace towline::wal
