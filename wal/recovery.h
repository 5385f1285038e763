// Opens what a spool's directory holds: reads, decides by the tables of recovery_table.h, then repairs. Internal to
// wal.

#ifndef TOWLINE_WAL_RECOVERY_H_
#define TOWLINE_WAL_RECOVERY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "wal/index.h"
#include "wal/segment.h"
#include "wal/spool.h"

namespace towline::wal {

// A log that may be served.
struct RecoveredLog {
  std::vector<SegmentSpan> segments;  // by first LSN; empty = the first one has to be made
  IndexEntries newest_index;
  std::unique_ptr<File> newest_file;  // open for writing
  bool footer_written = false;        // of the newest segment: it takes no more frames
  std::vector<std::string> spares;    // paths
  uint64_t last_number = 0;           // highest running number of a spare or tmp file
};

// See OpenSpool. Fills *report.
absl::StatusOr<RecoveredLog> RecoverLog(SpoolEnvironment env, const std::string& directory,
                                        const std::string& quarantine_directory, const SpoolOptions& options,
                                        const RecoveryInputs& inputs, RecoveryReport* report);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_RECOVERY_H_
