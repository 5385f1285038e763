// One segment of an open spool. Internal to wal.

#ifndef TOWLINE_WAL_SEGMENT_H_
#define TOWLINE_WAL_SEGMENT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "common/mutex.h"
#include "wal/index.h"
#include "wal/segment_format.h"

namespace towline::wal {

// Whoever holds a reference may read the file: a segment with holders is unlinked when it is removed, not recycled.
// Threads: all methods from any thread.
class Segment {
 public:
  // `log_start`: bytes of frames in the segments before this one, since some fixed point of the log.
  Segment(FileSystem& fs, const std::string& directory, const SegmentHeader& header, uint64_t log_start);

  const SegmentHeader& header() const { return header_; }
  Lsn first_lsn() const { return header_.first_lsn(); }
  const std::string& path() const { return path_; }
  uint64_t log_start() const { return log_start_; }

  // The file, opened for reading; all present holders share it.
  absl::StatusOr<std::shared_ptr<File>> OpenFile() TOWLINE_EXCLUDES(mutex_);

 private:
  FileSystem& fs_;
  const std::string path_;
  const SegmentHeader header_;
  const uint64_t log_start_;
  Mutex mutex_;
  std::weak_ptr<File> file_ TOWLINE_GUARDED_BY(mutex_);
};

// A segment and how much of it is durable at some moment.
struct SegmentSpan {
  std::shared_ptr<Segment> segment;
  LogEnd end;               // behind its last durable record
  uint64_t end_offset = 0;  // of the byte behind that record
  bool sealed = false;

  Lsn first_lsn() const { return segment->first_lsn(); }
  uint64_t frame_bytes() const { return end_offset - kFramesStart; }
  IndexOwner owner() const { return {first_lsn(), end.lsn, segment->header().salt, end_offset}; }
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SEGMENT_H_
