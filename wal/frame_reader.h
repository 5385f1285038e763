// Reads the frames of one segment in order and checks everything on the way. Internal to wal.

#ifndef TOWLINE_WAL_FRAME_READER_H_
#define TOWLINE_WAL_FRAME_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "wal/index.h"
#include "wal/local_frame.h"
#include "wal/segment.h"

namespace towline::wal {

// Sizes of one read.
inline constexpr size_t kReadBytesMin = 16 << 10;
inline constexpr size_t kReadBytesMax = 1 << 20;

// Threads: external synchronization.
class FrameReader {
 public:
  // Reads `file` from `offset` up to `end_offset`, about `read_bytes` at a time, into `buffer`. `before` is the log end
  // in front of `offset`; see UnknownTerm.
  FrameReader(File& file, const SegmentSpan& span, uint64_t offset, const LogEnd& before, size_t read_bytes,
              std::string* buffer);

  // A log end of which only LSN and chain are known, as in front of an index entry.
  static LogEnd UnknownTerm(const IndexEntry& entry);

  // The next frame; nullptr at the end. Its views are valid until the next call. DATA_LOSS, reason wal_damaged, if it
  // cannot be read, does not validate or does not continue the log.
  absl::StatusOr<const LocalFrame*> Next();

  // In front of the frame that Next will return.
  const LogEnd& position() const { return position_; }
  uint64_t offset() const { return offset_; }

  // Whether the next frame lies in what was read already, so that Next will not touch the disk.
  bool buffered() const;

 private:
  // The unread bytes that are in memory.
  absl::string_view Rest() const;
  // Makes at least `size` bytes from offset_ on available, or as many as there are in front of the end.
  absl::Status Fill(size_t size);
  absl::Status Damaged(absl::string_view what) const;

  File& file_;
  const std::string path_;
  const uint64_t salt_;
  const uint64_t end_offset_;
  const size_t read_bytes_;
  std::string* const buffer_;
  uint64_t buffer_offset_ = 0;  // of the first byte of *buffer_ in the file
  size_t buffer_size_ = 0;      // valid bytes in *buffer_
  uint64_t offset_;
  LogEnd position_;
  LocalFrame frame_;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_FRAME_READER_H_
