// What recovery does, as tables. docs/formats/recovery.md says why; the tests reach every row by its name. Internal to
// wal.

#ifndef TOWLINE_WAL_RECOVERY_TABLE_H_
#define TOWLINE_WAL_RECOVERY_TABLE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "wal/segment_format.h"
#include "wal/segment_scan.h"

namespace towline::wal {

// --- The log as a whole: exactly one row matches. ---

struct LogFindings {
  absl::Status sealed_damage;         // headers, footers or links in front of the newest segment's frames
  absl::Status newest_header_damage;  // the newest segment's own header
  bool has_segment = false;
  Lsn end_lsn = 0;  // of the newest segment's unbroken run; without a segment: the base
  Lsn watermark = 0;
  FooterState footer = FooterState::kNone;
  bool torn = false;  // frames of this life behind the run
};

enum class LogVerdict {
  kAccept,
  kCreateFirst,  // accept, create the first segment
  kCreateNext,   // accept, create the successor
  kCutTail,      // copy what is torn to quarantine, zero it
  kCorrupt,      // change nothing
};

struct LogRow {
  const char* name;
  const char* what;
  bool (*matches)(const LogFindings& findings);
  LogVerdict verdict;
};

absl::Span<const LogRow> LogTable();

// --- Each name in the directory: exactly one row matches. ---

struct FileFindings {
  FileKind kind = FileKind::kOther;
  bool below_first_retained = false;  // a segment or index: every record of it is
  bool newest = false;                // a segment: the last one
  bool has_segment = false;           // an index: its segment stays
  bool usable = false;                // a spare: of the present size, with no second name
};

enum class FileVerdict {
  kKeep,
  kRemove,
  kLeave,  // not ours
};

struct FileRow {
  const char* name;
  const char* what;
  bool (*matches)(const FileFindings& findings);
  FileVerdict verdict;
};

absl::Span<const FileRow> FileTable();

// The one row that matches.
const LogRow& MatchLogRow(const LogFindings& findings);
const FileRow& MatchFileRow(const FileFindings& findings);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_RECOVERY_TABLE_H_
