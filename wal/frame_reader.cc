#include "wal/frame_reader.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline::wal {

FrameReader::FrameReader(File& file, const SegmentSpan& span, uint64_t offset, const LogEnd& before, size_t read_bytes,
                         std::string* buffer)
    : file_(file),
      path_(span.segment->path()),
      salt_(span.segment->header().salt),
      end_offset_(span.end_offset),
      read_bytes_(std::clamp(read_bytes, kReadBytesMin, kReadBytesMax)),
      buffer_(buffer),
      offset_(offset),
      position_(before) {}

LogEnd FrameReader::UnknownTerm(const IndexEntry& entry) {
  return {entry.lsn - 1, 0, entry.prev_chain, std::numeric_limits<int64_t>::min()};
}

absl::StatusOr<const LocalFrame*> FrameReader::Next() {
  if (offset_ >= end_offset_) return nullptr;
  if (Rest().size() < kFrameHeaderSize) TOWLINE_RETURN_IF_ERROR(Fill(kFrameHeaderSize));
  FrameCheck check = CheckFrame(Rest(), salt_, &frame_);
  if (check == FrameCheck::kCut && frame_.size <= end_offset_ - offset_) {
    TOWLINE_RETURN_IF_ERROR(Fill(frame_.size));
    check = CheckFrame(Rest(), salt_, &frame_);
  }
  switch (check) {
    case FrameCheck::kValid:
      break;
    case FrameCheck::kNoFrame:
      return Damaged("no valid frame header");
    case FrameCheck::kCut:
      return Damaged("the frame is longer than the log");
    case FrameCheck::kBadPayload:
      return Damaged("the payload fails its checksum");
  }
  if (!Continues(frame_.frame.header, position_)) {
    return Damaged(absl::StrCat("LSN ", frame_.frame.header.lsn, " does not continue the log"));
  }
  position_ = frame_.end();
  offset_ += frame_.size;
  return &frame_;
}

bool FrameReader::buffered() const {
  ShippedHeader header;
  const absl::string_view rest = Rest();
  return rest.size() >= kFrameHeaderSize && DecodeShippedHeader(rest.data() + kLocalPartSize, &header).ok() &&
         rest.size() >= FrameSize(header.payload_size);
}

absl::string_view FrameReader::Rest() const {
  const uint64_t used = offset_ - buffer_offset_;
  if (used >= buffer_size_) return {};
  return absl::string_view(buffer_->data() + used, buffer_size_ - used);
}

absl::Status FrameReader::Fill(size_t size) {
  const size_t wanted = static_cast<size_t>(std::min<uint64_t>(std::max(size, read_bytes_), end_offset_ - offset_));
  if (buffer_->size() < wanted) buffer_->resize(wanted);
  absl::StatusOr<size_t> got = file_.ReadAt(offset_, wanted, buffer_->data());
  if (!got.ok()) return Damaged(got.status().message());
  buffer_offset_ = offset_;
  buffer_size_ = *got;
  if (*got < std::min<uint64_t>(size, end_offset_ - offset_)) return Damaged("the file ends inside the log");
  return absl::OkStatus();
}

absl::Status FrameReader::Damaged(absl::string_view what) const {
  return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", what, path_, offset_, position_.lsn + 1);
}

}  // namespace towline::wal
