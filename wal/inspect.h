// Offline reading of a spool, for the tools. Never takes a lock, never modifies anything, and never calls the growing
// end of a running node's log torn: what does not parse behind the last whole frame of the newest segment is `tail`.

#ifndef TOWLINE_WAL_INSPECT_H_
#define TOWLINE_WAL_INSPECT_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "wal/frame.h"

namespace towline::wal {

struct SegmentInfo {
  std::string file;
  ClusterId cluster_id;
  uint64_t generation = 0;  // that created it
  Lsn first_lsn = 0;
  Lsn last_lsn = 0;  // first_lsn - 1 if it holds no record
  uint64_t records = 0;
  uint64_t file_bytes = 0;
  uint64_t used_bytes = 0;  // up to the end of the last frame
  bool sealed = false;      // has a footer and a successor
  bool index_present = false;
  int64_t first_time_us = 0;  // 0 if it holds no record
  int64_t last_time_us = 0;
  std::string damage;  // of header, footer or the link to the segment in front of it; empty = none
};

struct SpoolInfo {
  std::vector<SegmentInfo> segments;  // ordered by first LSN
  uint64_t spares = 0;
  uint64_t tail_bytes = 0;  // behind the last whole frame of the newest segment, up to the last non-zero byte
};

// Reads headers, footers and the newest segment.
absl::StatusOr<SpoolInfo> InspectSpool(FileSystem& fs, const std::string& directory);

struct Damage {
  std::string file;
  uint64_t offset = 0;
  Lsn lsn = 0;  // first LSN that cannot be read; 0 = not known
  std::string what;
};

struct VerifyReport {
  uint64_t segments = 0;
  uint64_t records = 0;
  uint64_t bytes = 0;
  Lsn first_lsn = 0;
  Lsn last_lsn = 0;
  // Where the newest segment ends; absent if there is none, or none that can be read. `lsn`: the first that is not
  // there.
  std::optional<Damage> end;
  std::vector<Damage> damages;  // empty = everything verified
};

// Checks every checksum, the chain, the links between segments and the indexes, and that the log goes at least to
// `durable`: an LSN that was known to be durable before the call (0 = none). Without it, damage in the newest segment
// cannot be told from the tail of a write.
absl::StatusOr<VerifyReport> VerifySpool(FileSystem& fs, const std::string& directory, Lsn durable = 0);

// One frame and where it stands.
struct DumpedFrame {
  ShippedFrame frame;
  uint64_t stamp = 0;
  std::string file;
  uint64_t offset = 0;
};

// Which records: those that are in both ranges.
struct DumpRange {
  Lsn first = 0;
  Lsn last = std::numeric_limits<Lsn>::max();              // inclusive
  int64_t since_us = std::numeric_limits<int64_t>::min();  // commit time; inclusive
  int64_t until_us = std::numeric_limits<int64_t>::max();  // exclusive
};

// Calls `fn` for the records of the range, in order. Stops when fn returns an error.
absl::Status DumpSpool(FileSystem& fs, const std::string& directory, const DumpRange& range,
                       const std::function<absl::Status(const DumpedFrame&)>& fn);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_INSPECT_H_
