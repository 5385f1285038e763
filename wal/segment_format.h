// Segment files: names, header, footer.
//
// Format: docs/formats/segment_v1.md. Little-endian. Internal to wal.
//
//   sector 0          header
//   512 ..            frames, back to back (frame_v1)
//   last sector       footer, written when the segment is full

#ifndef TOWLINE_WAL_SEGMENT_FORMAT_H_
#define TOWLINE_WAL_SEGMENT_FORMAT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "wal/frame.h"

namespace towline::wal {

inline constexpr uint64_t kSegmentMagic = 0x0a3147455357540aull;  // "\nTWSEG1\n"
inline constexpr uint64_t kFooterMagic = 0x0a31444e4557540aull;   // "\nTWEND1\n"
inline constexpr uint32_t kSegmentVersion = 1;
inline constexpr uint64_t kSectorSize = 512;  // a disk writes one wholly or not at all
inline constexpr uint64_t kFramesStart = kSectorSize;
inline constexpr uint64_t kSegmentBytesMin = 64 << 10;

// Where frames have to end in a file of this size.
inline constexpr uint64_t FramesEnd(uint64_t file_size) { return file_size - kSectorSize; }

struct SegmentHeader {
  ClusterId cluster_id;
  uint64_t generation = 0;  // that created the file
  LogEnd before;            // end of the log in front of the first frame
  uint64_t salt = 0;  // random; part of every header CRC, so that frames of the file's former life do not validate
  uint64_t file_size = 0;

  Lsn first_lsn() const { return before.lsn + 1; }
};

struct SegmentFooter {
  Lsn first_lsn = 0;
  uint64_t records = 0;
  LogEnd end;
  uint64_t end_offset = 0;  // behind the last frame
  uint64_t salt = 0;
};

// One sector each.
std::string EncodeSegmentHeader(const SegmentHeader& header);
std::string EncodeSegmentFooter(const SegmentFooter& footer);

// DATA_LOSS with the reason in words. Looks at nothing outside the sector.
absl::Status DecodeSegmentHeader(absl::string_view sector, SegmentHeader* header);
absl::Status DecodeSegmentFooter(absl::string_view sector, SegmentFooter* footer);

// What a name in the directory of a spool stands for.
enum class FileKind { kSegment, kIndex, kSpare, kTmp, kOther };

struct FileName {
  FileKind kind = FileKind::kOther;
  uint64_t number = 0;  // first LSN, or the running number of a spare or tmp segment
};

FileName ParseFileName(absl::string_view name);
std::string SegmentFileName(Lsn first_lsn);
std::string IndexFileName(Lsn first_lsn);
std::string TmpIndexFileName(Lsn first_lsn);
std::string SpareFileName(uint64_t number);
std::string TmpFileName(uint64_t number);

// An error about a place in the log, with file, offset and LSN as metadata. `lsn` 0 = not known.
absl::Status PlaceError(absl::StatusCode code, absl::string_view reason, absl::string_view what, absl::string_view file,
                        uint64_t offset, Lsn lsn, absl::string_view next_action = "");

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SEGMENT_FORMAT_H_
