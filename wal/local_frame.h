// Frames as they stand in a segment: the local part in front of the shipped part, and the padding behind it.
//
// Format: docs/formats/frame_v1.md. Internal to wal.

#ifndef TOWLINE_WAL_LOCAL_FRAME_H_
#define TOWLINE_WAL_LOCAL_FRAME_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "wal/frame.h"

namespace towline::wal {

// The 40 bytes at `at`. DATA_LOSS, reason bad_frame: reserved bits, type or length.
absl::Status DecodeShippedHeader(const char* at, ShippedHeader* header);
void EncodeShippedHeader(const ShippedHeader& header, char* at);

// Fills the 16 bytes in front of an encoded shipped header. `frame` points to the local part.
void FillLocalPart(uint64_t stamp, uint64_t salt, char* frame);

// The same in two steps, for a writer that knows the stamp early, while the frame is in the processor's cache, and the
// salt late. The second step needs what the first one returns, and does not read the frame.
uint32_t BeginLocalPart(uint64_t stamp, char* frame);
void FinishLocalPart(uint32_t begun, uint64_t salt, char* frame);

// What stands at a place where a frame may start.
enum class FrameCheck {
  kValid,
  kNoFrame,    // the header does not validate under this salt
  kCut,        // the header validates, the frame is longer than the bytes
  kBadPayload  // the header validates, payload CRC or padding does not
};

struct LocalFrame {
  ShippedFrame frame;  // payload and shipped are set unless kNoFrame or kCut
  uint64_t stamp = 0;
  uint64_t size = 0;  // in the segment, padding included

  // End of the log behind this frame.
  LogEnd end() const { return {frame.header.lsn, frame.header.term, frame.chain(), frame.header.commit_time_us}; }
};

// Looks at the start of `bytes`. Fills *out unless kNoFrame. Does not look at the links between frames.
FrameCheck CheckFrame(absl::string_view bytes, uint64_t salt, LocalFrame* out);

// Whether `frame` continues a log that ends with `end`.
bool Continues(const ShippedHeader& header, const LogEnd& end);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_LOCAL_FRAME_H_
