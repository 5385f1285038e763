#include "wal/local_frame.h"

#include <string>

#include "common/bytes.h"
#include "common/checksum.h"
#include "common/failpoint.h"

namespace towline::wal {
namespace {

constexpr size_t kMagicOffset = 0;
constexpr size_t kHeaderCrcOffset = 4;
constexpr size_t kStampOffset = 8;
constexpr size_t kPayloadLengthOffset = 20;

// Over stamp and shipped header; without a copy of them: that would read what was stored a moment ago in pieces of
// another size, for which the processor has to wait.
uint32_t CrcWithoutSalt(const char* frame) {
  const absl::string_view covered(frame + kStampOffset, kFrameHeaderSize - kStampOffset);
  if (!Failpoint("wal_crc_without_length")) return Crc32c(covered);
  std::string without(covered);
  StoreLe(without.data() + kPayloadLengthOffset - kStampOffset, uint32_t{0});
  return Crc32c(without);
}

uint32_t HeaderCrc(uint32_t crc_without_salt, uint64_t salt) {
  return Crc32cExtendU64(crc_without_salt, Failpoint("wal_ignore_salt") ? 0 : salt);
}

}  // namespace

uint32_t BeginLocalPart(uint64_t stamp, char* frame) {
  StoreLe(frame + kMagicOffset, kFrameMagic);
  StoreLe(frame + kStampOffset, stamp);
  return CrcWithoutSalt(frame);
}

void FinishLocalPart(uint32_t begun, uint64_t salt, char* frame) {
  StoreLe(frame + kHeaderCrcOffset, HeaderCrc(begun, salt));
}

void FillLocalPart(uint64_t stamp, uint64_t salt, char* frame) {
  FinishLocalPart(BeginLocalPart(stamp, frame), salt, frame);
}

FrameCheck CheckFrame(absl::string_view bytes, uint64_t salt, LocalFrame* out) {
  if (bytes.size() < kFrameHeaderSize) return FrameCheck::kNoFrame;
  const char* at = bytes.data();
  if (LoadLe<uint32_t>(at + kMagicOffset) != kFrameMagic) return FrameCheck::kNoFrame;
  if (LoadLe<uint32_t>(at + kHeaderCrcOffset) != HeaderCrc(CrcWithoutSalt(at), salt)) return FrameCheck::kNoFrame;
  if (!DecodeShippedHeader(at + kLocalPartSize, &out->frame.header).ok()) return FrameCheck::kNoFrame;
  out->stamp = LoadLe<uint64_t>(at + kStampOffset);
  const size_t payload_size = out->frame.header.payload_size;
  out->size = FrameSize(payload_size);
  if (bytes.size() < out->size) return FrameCheck::kCut;
  out->frame.shipped = bytes.substr(kLocalPartSize, kShippedHeaderSize + payload_size);
  out->frame.payload = out->frame.shipped.substr(kShippedHeaderSize);
  if (Crc32c(out->frame.payload) != out->frame.header.payload_crc) return FrameCheck::kBadPayload;
  for (size_t i = kFrameHeaderSize + payload_size; i < out->size; ++i) {
    if (bytes[i] != '\0') return FrameCheck::kBadPayload;
  }
  return FrameCheck::kValid;
}

bool Continues(const ShippedHeader& header, const LogEnd& end) {
  return header.lsn == end.lsn + 1 && (header.prev_chain == end.chain || Failpoint("wal_ignore_chain")) &&
         header.term >= end.term && header.commit_time_us >= end.commit_time_us;
}

}  // namespace towline::wal
