#include "primary/outgoing_records.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "towline/v1/change.pb.h"
#include "towline/v1/replication_service.pb.h"
#include "wal/frame.h"

namespace towline {

void OutgoingRecords::Load(wal::ShippedBatch batch) {
  batch_ = std::move(batch);
  offset_ = 0;
}

absl::Status OutgoingRecords::Fill(uint64_t credit_bytes, v1::PullResponse* out) {
  Piece piece;
  TOWLINE_RETURN_IF_ERROR(Cut(credit_bytes, &piece));
  const bool last = offset_ + piece.size == batch_.bytes.size();
  if (as_frames_ && piece.size > message_bytes_max_) {
    FillFragment(piece, out);
    if (in_fragment()) return absl::OkStatus();
  } else {
    if (as_frames_) {
      FillFrames(piece, out);
    } else {
      TOWLINE_RETURN_IF_ERROR(FillRecords(piece, out));
    }
    sent_bytes_ += piece.size;
  }
  sent_lsn_ = piece.last_lsn;
  if (last) {
    Load({});
  } else {
    offset_ += piece.size;
  }
  return absl::OkStatus();
}

// The whole records that the next message takes.
absl::Status OutgoingRecords::Cut(uint64_t credit_bytes, Piece* piece) const {
  const uint64_t limit = std::min<uint64_t>(message_bytes_max_, credit_bytes);
  const absl::string_view rest = absl::string_view(batch_.bytes).substr(offset_);
  const bool one_record = batch_.after.lsn == batch_.before.lsn + 1;
  if (offset_ == 0 && (one_record || rest.size() <= limit)) {
    piece->size = rest.size();
    piece->first_lsn = batch_.before.lsn + 1;
    piece->last_lsn = batch_.after.lsn;
    piece->chain_after = batch_.after.chain;
    return absl::OkStatus();
  }
  while (piece->size < rest.size()) {
    TOWLINE_ASSIGN_OR_RETURN(const wal::ShippedFrame frame, wal::DecodeShipped(rest.substr(piece->size)));
    if (piece->size > 0 && piece->size + frame.shipped.size() > limit) break;
    if (piece->size == 0) piece->first_lsn = frame.header.lsn;
    piece->size += frame.shipped.size();
    piece->last_lsn = frame.header.lsn;
    piece->chain_after = frame.chain();
  }
  return absl::OkStatus();
}

void OutgoingRecords::FillFrames(const Piece& piece, v1::PullResponse* out) {
  v1::FrameBatch* frames = out->mutable_frames();
  frames->set_first_lsn(piece.first_lsn);
  frames->set_last_lsn(piece.last_lsn);
  frames->set_chain_after(piece.chain_after);
  if (piece.size == batch_.bytes.size()) {
    frames->set_frames(std::move(batch_.bytes));
  } else {
    frames->set_frames(batch_.bytes.substr(offset_, piece.size));
  }
}

void OutgoingRecords::FillFragment(const Piece& piece, v1::PullResponse* out) {
  const size_t size = std::min(message_bytes_max_, piece.size - fragment_offset_);
  v1::FrameBatch* frames = out->mutable_frames();
  frames->set_first_lsn(piece.first_lsn);
  frames->set_last_lsn(piece.last_lsn);
  frames->set_chain_after(piece.chain_after);
  frames->set_frames(batch_.bytes.substr(offset_ + fragment_offset_, size));
  frames->set_fragment_offset(fragment_offset_);
  frames->set_fragment_total(piece.size);
  sent_bytes_ += size;
  fragment_offset_ += size;
  if (fragment_offset_ == piece.size) fragment_offset_ = 0;
}

absl::Status OutgoingRecords::FillRecords(const Piece& piece, v1::PullResponse* out) const {
  v1::RecordBatch* batch = out->mutable_records();
  const absl::string_view bytes = absl::string_view(batch_.bytes).substr(offset_, piece.size);
  return wal::ForEachShipped(bytes, [batch](const wal::ShippedFrame& frame) -> absl::Status {
    v1::Record* record = batch->add_records();
    record->set_lsn(frame.header.lsn);
    record->set_term(frame.header.term);
    record->set_commit_time_us(static_cast<uint64_t>(frame.header.commit_time_us));
    record->set_chain(frame.chain());
    if (!record->mutable_change()->ParseFromArray(frame.payload.data(), static_cast<int>(frame.payload.size()))) {
      return MakeError(absl::StatusCode::kDataLoss, "malformed_record",
                       absl::StrCat("the payload of LSN ", frame.header.lsn, " is no change"),
                       "look at it with towctl wal dump");
    }
    return absl::OkStatus();
  });
}

}  // namespace towline
