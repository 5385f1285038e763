#include "wal/frame.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/checksum.h"
#include "common/error.h"
#include "wal/local_frame.h"

namespace towline::wal {
namespace {

absl::Status BadFrame(absl::string_view what) { return MakeError(absl::StatusCode::kDataLoss, "bad_frame", what); }

bool IsKnown(RecordType type) {
  return type == RecordType::kBatch || type == RecordType::kTermStart || type == RecordType::kMembers;
}

// Room behind a group: who writes it ends the write at a page boundary. Without it a large group that just fills its
// memory would be copied for a few more bytes.
constexpr size_t kPageBytes = 4096;
constexpr size_t kLargeGroupBytes = 16 << 10;

// Makes room for a frame of `size` bytes.
void Grow(size_t size, std::string* bytes) {
  const size_t needed = bytes->size() + size + kPageBytes;
  if (needed > bytes->capacity() && needed > kLargeGroupBytes) bytes->reserve(std::max(needed, 2 * bytes->capacity()));
}

// Zero bytes up to the next frame.
void Pad(std::string* bytes) {
  const size_t rest = bytes->size() % kFrameAlignment;
  if (rest != 0) bytes->append(kFrameAlignment - rest, '\0');
}

}  // namespace

uint64_t ShippedFrame::chain() const { return Xxh3(shipped); }

absl::StatusOr<ShippedFrame> DecodeShipped(absl::string_view bytes) {
  if (bytes.size() < kShippedHeaderSize) {
    return absl::OutOfRangeError(absl::StrCat("frame header cut at ", bytes.size(), " bytes"));
  }
  ShippedFrame frame;
  TOWLINE_RETURN_IF_ERROR(DecodeShippedHeader(bytes.data(), &frame.header));
  const size_t size = kShippedHeaderSize + frame.header.payload_size;
  if (bytes.size() < size) {
    return absl::OutOfRangeError(absl::StrCat("frame of ", size, " bytes cut at ", bytes.size()));
  }
  frame.shipped = bytes.substr(0, size);
  frame.payload = frame.shipped.substr(kShippedHeaderSize);
  const uint32_t crc = Crc32c(frame.payload);
  if (crc != frame.header.payload_crc) {
    return BadFrame(absl::StrCat("LSN ", frame.header.lsn, ": payload CRC is ", absl::Hex(crc, absl::kZeroPad8),
                                 ", header says ", absl::Hex(frame.header.payload_crc, absl::kZeroPad8)));
  }
  return frame;
}

absl::Status ForEachShipped(absl::string_view bytes, const std::function<absl::Status(const ShippedFrame&)>& fn) {
  while (!bytes.empty()) {
    absl::StatusOr<ShippedFrame> frame = DecodeShipped(bytes);
    if (!frame.ok()) return std::move(frame).status();
    TOWLINE_RETURN_IF_ERROR(fn(*frame));
    bytes.remove_prefix(frame->shipped.size());
  }
  return absl::OkStatus();
}

absl::Status DecodeShippedHeader(const char* at, ShippedHeader* header) {
  header->type = static_cast<RecordType>(LoadLe<uint8_t>(at));
  header->flags = LoadLe<uint8_t>(at + 1);
  header->payload_size = LoadLe<uint32_t>(at + 4);
  header->term = LoadLe<uint32_t>(at + 8);
  header->payload_crc = LoadLe<uint32_t>(at + 12);
  header->lsn = LoadLe<uint64_t>(at + 16);
  header->commit_time_us = LoadLe<int64_t>(at + 24);
  header->prev_chain = LoadLe<uint64_t>(at + 32);
  if ((header->flags & ~kFlagSkipIfUnknown) != 0 || LoadLe<uint16_t>(at + 2) != 0) {
    return BadFrame(absl::StrCat("LSN ", header->lsn, ": reserved bits are set"));
  }
  if (!IsKnown(header->type) && (header->flags & kFlagSkipIfUnknown) == 0) {
    return BadFrame(absl::StrCat("LSN ", header->lsn, ": unknown record type ", static_cast<int>(header->type)));
  }
  if (header->payload_size > kPayloadSizeMax) {
    return BadFrame(absl::StrCat("LSN ", header->lsn, ": payload of ", header->payload_size, " bytes, at most ",
                                 kPayloadSizeMax, " are allowed"));
  }
  return absl::OkStatus();
}

void EncodeShippedHeader(const ShippedHeader& header, char* at) {
  StoreLe<uint8_t>(at, static_cast<uint8_t>(header.type));
  StoreLe<uint8_t>(at + 1, header.flags);
  StoreLe<uint16_t>(at + 2, 0);
  StoreLe<uint32_t>(at + 4, header.payload_size);
  StoreLe<uint32_t>(at + 8, header.term);
  StoreLe<uint32_t>(at + 12, header.payload_crc);
  StoreLe<uint64_t>(at + 16, header.lsn);
  StoreLe<int64_t>(at + 24, header.commit_time_us);
  StoreLe<uint64_t>(at + 32, header.prev_chain);
}

GroupBuilder::GroupBuilder(const LogEnd& end) : group_(std::make_shared<FrameGroup>()) {
  group_->before = end;
  group_->after = end;
}

Lsn GroupBuilder::Add(RecordType type, Term term, int64_t now_us, absl::string_view payload, uint32_t payload_crc) {
  const LogEnd& end = group_->after;
  TOWLINE_CHECK(term >= 1 && term >= end.term);
  TOWLINE_CHECK(payload.size() <= kPayloadSizeMax);
  ShippedHeader header;
  header.type = type;
  header.payload_size = static_cast<uint32_t>(payload.size());
  header.term = term;
  header.payload_crc = payload_crc;
  header.lsn = end.lsn + 1;
  header.commit_time_us = std::max(now_us, end.commit_time_us);
  header.prev_chain = end.chain;

  std::string& bytes = group_->bytes;
  const size_t offset = bytes.size();
  Grow(FrameSize(payload.size()), &bytes);
  char raw[kFrameHeaderSize] = {};
  EncodeShippedHeader(header, raw + kLocalPartSize);
  bytes.append(raw, sizeof raw);
  bytes.append(payload.data(), payload.size());
  AppendRef(offset, header);
  return header.lsn;
}

absl::StatusOr<size_t> GroupBuilder::AddShipped(absl::string_view bytes) {
  absl::StatusOr<ShippedFrame> frame = DecodeShipped(bytes);
  if (!frame.ok()) {
    if (absl::IsOutOfRange(frame.status())) return BadFrame(frame.status().message());
    return std::move(frame).status();
  }
  const ShippedHeader& header = frame->header;
  const LogEnd& end = group_->after;
  if (header.lsn != end.lsn + 1) {
    return MakeError(absl::StatusCode::kDataLoss, "lsn_gap",
                     absl::StrCat("received LSN ", header.lsn, " behind LSN ", end.lsn));
  }
  if (header.prev_chain != end.chain) {
    return MakeError(absl::StatusCode::kDataLoss, "chain_mismatch",
                     absl::StrCat("LSN ", header.lsn, " follows chain ", absl::Hex(header.prev_chain, absl::kZeroPad16),
                                  ", the log ends with ", absl::Hex(end.chain, absl::kZeroPad16)));
  }
  if (header.term == 0 || header.term < end.term) {
    return BadFrame(absl::StrCat("LSN ", header.lsn, ": term falls from ", end.term, " to ", header.term));
  }
  if (header.commit_time_us < end.commit_time_us) {
    return BadFrame(absl::StrCat("LSN ", header.lsn, ": commit time falls from ", end.commit_time_us, " to ",
                                 header.commit_time_us));
  }
  const size_t offset = group_->bytes.size();
  Grow(FrameSize(header.payload_size), &group_->bytes);
  group_->bytes.append(kLocalPartSize, '\0');
  group_->bytes.append(frame->shipped.data(), frame->shipped.size());
  AppendRef(offset, header);
  return frame->shipped.size();
}

void GroupBuilder::AppendRef(size_t offset, const ShippedHeader& header) {
  std::string& bytes = group_->bytes;
  const size_t shipped_size = bytes.size() - offset - kLocalPartSize;
  TOWLINE_CHECK(bytes.size() <= UINT32_MAX - kFrameAlignment);
  // The stamp is the end of the log when the group is written, and that is where the group begins.
  const uint32_t begun = BeginLocalPart(group_->before.lsn, bytes.data() + offset);
  group_->frames.push_back({static_cast<uint32_t>(offset), static_cast<uint32_t>(shipped_size), begun});
  const uint64_t salt = group_->before.salt_hint;
  if (salt != 0) FinishLocalPart(begun, salt, bytes.data() + offset);
  group_->after = {header.lsn, header.term,
                   Xxh3(absl::string_view(bytes).substr(offset + kLocalPartSize, shipped_size)), header.commit_time_us,
                   salt};
  Pad(&bytes);
}

const LogEnd& GroupBuilder::end() const { return group_->after; }
size_t GroupBuilder::bytes() const { return group_->bytes.size(); }
bool GroupBuilder::empty() const { return group_->frames.empty(); }

std::shared_ptr<FrameGroup> GroupBuilder::Finish() {
  TOWLINE_CHECK(!empty());
  std::shared_ptr<FrameGroup> done = std::move(group_);
  group_ = std::make_shared<FrameGroup>();
  group_->before = done->after;
  group_->after = done->after;
  return done;
}

}  // namespace towline::wal
