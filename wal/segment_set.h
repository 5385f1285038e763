// The segments of a directory as their headers and footers describe them, without their records. Internal to wal.

#ifndef TOWLINE_WAL_SEGMENT_SET_H_
#define TOWLINE_WAL_SEGMENT_SET_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "wal/segment_format.h"

namespace towline::wal {

struct SegmentFile {
  std::string path;
  Lsn name_lsn = 0;  // that its name says
  uint64_t file_size = 0;
  SegmentHeader header;
  absl::Status header_status;  // DATA_LOSS with place if the header does not stand for this file
  SegmentFooter footer;
  absl::Status footer_status;  // DATA_LOSS with place if there is no footer that belongs to the header
};

// Reads header and footer of a file. Errors are those of the disk; damage is in the result.
absl::StatusOr<SegmentFile> ReadSegmentFile(FileSystem& fs, const std::string& directory, Lsn name_lsn);

// DATA_LOSS with place unless `next` continues `sealed`, which has a valid footer.
absl::Status CheckLink(const SegmentFile& sealed, const SegmentFile& next);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SEGMENT_SET_H_
