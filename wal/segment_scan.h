// Reads the newest segment from memory and tells what it holds: the log up to its end, and what stands behind it.
// Internal to wal.

#ifndef TOWLINE_WAL_SEGMENT_SCAN_H_
#define TOWLINE_WAL_SEGMENT_SCAN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

#include "wal/index.h"
#include "wal/segment_format.h"

namespace towline::wal {

// The footer sector of a segment that should not have a successor.
enum class FooterState {
  kNone,          // zeros, or of a former life of the file
  kMatches,       // agrees with the frames, and no frame stands behind the end
  kContradicted,  // of this life, and does not
};

struct SegmentScan {
  LogEnd end;  // behind the last frame of the unbroken run from the start
  uint64_t end_offset = 0;
  IndexEntries index;  // of that run
  Lsn stamp = 0;       // highest stamp of any frame with a valid header, also behind the run
  std::vector<std::pair<Lsn, std::string>> term_starts;  // TERM_START payloads of the run
  uint64_t torn_end = 0;  // behind the last frame of this life that is not in the run; end_offset if there is none
  FooterState footer = FooterState::kNone;

  bool torn() const { return torn_end > end_offset; }
};

// `file`: all bytes of the file. `header` is its header.
SegmentScan ScanSegment(absl::string_view file, const SegmentHeader& header, uint64_t index_interval);

// Offset of record `lsn`, which the run holds.
uint64_t OffsetInScan(absl::string_view file, const SegmentHeader& header, const SegmentScan& scan, Lsn lsn);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SEGMENT_SCAN_H_
