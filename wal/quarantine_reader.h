// Reads the files in a node's quarantine, for the tools. Never modifies anything.
//
//   torn-<generation>-<first LSN>-<n>.frames       what recovery cut off a segment: frames with local parts, and holes
//   diverged-<generation>-<first LSN>.frames       records that a node gave up: shipped parts, one behind the other
//
// Neither holds the salt of its segment, so a header CRC cannot be checked; a record counts as whole if its header can
// be decoded and its payload matches its CRC.

#ifndef TOWLINE_WAL_QUARANTINE_READER_H_
#define TOWLINE_WAL_QUARANTINE_READER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "wal/inspect.h"

namespace towline::wal {

struct QuarantineFile {
  std::string path;
  uint64_t bytes = 0;
  bool torn = false;  // else diverged
};

// By name. Empty if the directory does not exist. Files with other names are left out.
absl::StatusOr<std::vector<QuarantineFile>> ListQuarantine(FileSystem& fs, const std::string& directory);

// Calls `fn` for every whole record of the file, in the order in which they stand there; a stamp is 0 in a diverged
// file. Returns the bytes that belong to no whole record. Stops when fn returns an error.
absl::StatusOr<uint64_t> DumpQuarantineFile(FileSystem& fs, const QuarantineFile& file,
                                            const std::function<absl::Status(const DumpedFrame&)>& fn);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_QUARANTINE_READER_H_
