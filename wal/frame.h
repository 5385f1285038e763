// Frames: the unit of the log on disk and on the wire.
//
// Format: docs/formats/frame_v1.md. Little-endian; frames start at multiples of 8 in a segment.
//
//   local part (16 bytes, written by each node for itself, never shipped)
//     0  u32 magic                kFrameMagic
//     4  u32 header CRC32C        over bytes 8..55 of the frame, extended by the segment's salt (8 bytes)
//     8  u64 stamp                this node's durable LSN when it wrote the frame
//   shipped part (identical on every node)
//    16  u8  type                 RecordType
//    17  u8  flags                bit 0: skip if unknown; others 0
//    18  u16 reserved             0
//    20  u32 payload length
//    24  u32 term
//    28  u32 payload CRC32C
//    32  u64 LSN
//    40  u64 commit time          Unix microseconds, max(clock, previous)
//    48  u64 previous chain
//    56  payload                  encoded towline.v1.Change
//        zero bytes up to a multiple of 8 (on disk only)
//
// chain = XXH3-64 of the shipped part (header and payload); the previous chain is part of the header.

#ifndef TOWLINE_WAL_FRAME_H_
#define TOWLINE_WAL_FRAME_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/types.h"

namespace towline::wal {

inline constexpr uint32_t kFrameMagic = 0x4d465754;  // "TWFM"
inline constexpr size_t kLocalPartSize = 16;
inline constexpr size_t kShippedHeaderSize = 40;
inline constexpr size_t kFrameHeaderSize = kLocalPartSize + kShippedHeaderSize;
inline constexpr size_t kFrameAlignment = 8;
inline constexpr uint8_t kFlagSkipIfUnknown = 1;
// Hard limit of a payload; the intake limit limits.record_bytes is lower.
inline constexpr uint32_t kPayloadSizeMax = 64u << 20;

enum class RecordType : uint8_t { kBatch = 1, kTermStart = 2, kMembers = 3 };

// Bytes that a frame with this payload takes in a segment.
inline constexpr uint64_t FrameSize(uint64_t payload_size) {
  return (kFrameHeaderSize + payload_size + kFrameAlignment - 1) / kFrameAlignment * kFrameAlignment;
}

struct ShippedHeader {
  RecordType type = RecordType::kBatch;
  uint8_t flags = 0;
  uint32_t payload_size = 0;
  Term term = 0;
  uint32_t payload_crc = 0;
  Lsn lsn = 0;
  int64_t commit_time_us = 0;
  uint64_t prev_chain = 0;
};

// One frame in a byte string. The views point into it.
struct ShippedFrame {
  ShippedHeader header;
  absl::string_view shipped;  // header and payload
  absl::string_view payload;
  uint64_t chain() const;  // computed: XXH3-64 of `shipped`
};

// Decodes the shipped part at the start of `bytes` (more may follow). Checks length, reserved bits, type (unknown types
// pass only with kFlagSkipIfUnknown) and the payload CRC. DATA_LOSS otherwise; OUT_OF_RANGE if `bytes` ends inside.
absl::StatusOr<ShippedFrame> DecodeShipped(absl::string_view bytes);

// Calls `fn` for each of the concatenated shipped parts. Stops at the first error.
absl::Status ForEachShipped(absl::string_view bytes, const std::function<absl::Status(const ShippedFrame&)>& fn);

// Where the log ends, for the frame that follows.
struct LogEnd {
  Lsn lsn = 0;
  Term term = 0;
  uint64_t chain = 0;
  int64_t commit_time_us = 0;
  // Of the segment that holds the record; 0 = not known. Who frames the next records with it saves the append that work,
  // unless the log has gone on to another segment by then.
  uint64_t salt_hint = 0;

  friend bool operator==(const LogEnd& a, const LogEnd& b) {
    return a.lsn == b.lsn && a.term == b.term && a.chain == b.chain && a.commit_time_us == b.commit_time_us;
  }
};

// Consecutive frames as they stand in a segment; one buffer serves the write, the apply and all tailing streams.
// Immutable once appended: Spool::Append finishes the local parts just before the write, unless they were finished with
// before.salt_hint and that is the segment's salt.
struct FrameGroup {
  struct Ref {
    uint32_t offset = 0;  // of the frame (its local part) in `bytes`
    uint32_t shipped_size = 0;
    uint32_t local_part_begun = 0;  // for FinishLocalPart
  };
  std::string bytes;
  std::vector<Ref> frames;
  LogEnd before;  // end of the log in front of the first frame
  LogEnd after;   // end of the log behind the last frame

  Lsn first_lsn() const { return before.lsn + 1; }
  Lsn last_lsn() const { return after.lsn; }
  absl::string_view shipped(size_t i) const {
    return absl::string_view(bytes).substr(frames[i].offset + kLocalPartSize, frames[i].shipped_size);
  }
  absl::string_view payload(size_t i) const { return shipped(i).substr(kShippedHeaderSize); }
};

// Builds a group behind `end`.
// Threads: external synchronization.
class GroupBuilder {
 public:
  explicit GroupBuilder(const LogEnd& end);

  // Adds a record with the next LSN; the commit time is max(now_us, previous). `term` must not fall. Returns its
  // LSN. `payload_crc` is Crc32c(payload).
  Lsn Add(RecordType type, Term term, int64_t now_us, absl::string_view payload, uint32_t payload_crc);

  // Adds a frame received from an upstream, after checking everything: length, CRC, LSN, term, previous chain. On
  // error nothing is added: DATA_LOSS, reason bad_frame | lsn_gap | chain_mismatch. Returns the bytes consumed.
  absl::StatusOr<size_t> AddShipped(absl::string_view bytes);

  const LogEnd& end() const;  // behind the last frame so far
  size_t bytes() const;
  bool empty() const;

  // The group; the builder goes on behind it with an empty one. Requires !empty().
  std::shared_ptr<FrameGroup> Finish();

 private:
  // Makes the bytes from `offset` on the group's next frame.
  void AppendRef(size_t offset, const ShippedHeader& header);

  std::shared_ptr<FrameGroup> group_;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_FRAME_H_
