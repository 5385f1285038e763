#include "wal/segment.h"

#include "common/error.h"

namespace towline::wal {

Segment::Segment(FileSystem& fs, const std::string& directory, const SegmentHeader& header, uint64_t log_start)
    : fs_(fs),
      path_(JoinPath(directory, SegmentFileName(header.first_lsn()))),
      header_(header),
      log_start_(log_start) {}

absl::StatusOr<std::shared_ptr<File>> Segment::OpenFile() {
  MutexLock lock(&mutex_);
  std::shared_ptr<File> file = file_.lock();
  if (file != nullptr) return file;
  TOWLINE_ASSIGN_OR_RETURN(file, fs_.Open(path_, OpenMode::kRead));
  file_ = file;
  return file;
}

}  // namespace towline::wal
