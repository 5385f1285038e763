// The checkpoint of an import: how far it is, and of which file.

#ifndef TOWLINE_CTL_IMPORT_CHECKPOINT_H_
#define TOWLINE_CTL_IMPORT_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace towline::ctl {

struct ImportCheckpoint {
  std::string file;              // absolute path; "-" for standard input
  uint64_t file_bytes = 0;       // 0 for standard input
  std::string client_id;         // of the request ids, so that a line that is sent again is not applied again
  uint64_t last_acked_line = 0;  // every line up to it is written or rejected
  uint64_t offset = 0;           // of the line behind it
  uint64_t acked = 0;            // lines written, over all runs
  uint64_t rejected = 0;         // lines rejected, over all runs
  uint64_t term = 0;             // of the last record written
  uint64_t lsn = 0;

  friend bool operator==(const ImportCheckpoint&, const ImportCheckpoint&) = default;
};

// Replaces `path`, durably: a crash leaves the old or the new one.
absl::Status SaveCheckpoint(const std::string& path, const ImportCheckpoint& checkpoint);

// NOT_FOUND if there is none; DATA_LOSS, reason checkpoint_malformed, if it cannot be read.
absl::StatusOr<ImportCheckpoint> LoadCheckpoint(const std::string& path);

// FAILED_PRECONDITION, reason checkpoint_of_another_file, unless `saved` is of this file.
absl::Status CheckSameFile(const ImportCheckpoint& saved, const std::string& file, uint64_t file_bytes);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_IMPORT_CHECKPOINT_H_
