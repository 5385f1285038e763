#include "wal/log_cursor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "wal/frame_reader.h"
#include "wal/local_frame.h"

namespace towline::wal {

absl::StatusOr<ShippedBatch> LogCursor::Next(size_t max_bytes) {
  groups_.clear();
  const TailLookup lookup = view_.Tail(next_lsn(), max_bytes, &groups_);
  if (lookup == TailLookup::kOnDisk) {
    absl::StatusOr<ShippedBatch> batch = FromDisk(max_bytes);
    if (!batch.ok()) return Explain(batch.status());
    return batch;
  }
  // At the end of the log a cursor costs no memory and pins no segment.
  place_.reset();
  file_.reset();
  std::string().swap(buffer_);
  ShippedBatch batch = lookup == TailLookup::kCached ? FromMemory(max_bytes) : ShippedBatch{at_, at_, ""};
  groups_.clear();
  return batch;
}

ShippedBatch LogCursor::FromMemory(size_t max_bytes) {
  ShippedBatch batch;
  batch.before = at_;
  size_t first = static_cast<size_t>(next_lsn() - groups_.front()->first_lsn());
  size_t bytes = 0;
  for (const auto& group : groups_) bytes += group->bytes.size();
  batch.bytes.reserve(std::min(bytes, max_bytes));
  for (const auto& group : groups_) {
    for (size_t i = first; i < group->frames.size(); ++i) {
      const absl::string_view shipped = group->shipped(i);
      if (!batch.bytes.empty() && batch.bytes.size() + shipped.size() > max_bytes) return batch;
      batch.bytes.append(shipped.data(), shipped.size());
      if (i + 1 == group->frames.size()) {
        at_ = group->after;
      } else {
        ShippedHeader header;
        ShippedHeader next;
        (void)DecodeShippedHeader(shipped.data(), &header);  // own bytes
        (void)DecodeShippedHeader(group->shipped(i + 1).data(), &next);
        at_ = {header.lsn, header.term, next.prev_chain, header.commit_time_us};
      }
      batch.after = at_;
    }
    first = 0;
  }
  return batch;
}

absl::StatusOr<ShippedBatch> LogCursor::FromDisk(size_t max_bytes) {
  TOWLINE_RETURN_IF_ERROR(FindPlace());
  ShippedBatch batch;
  batch.before = at_;
  batch.after = at_;
  FrameReader reader(*file_, place_->span, place_->offset, at_, max_bytes, &buffer_);
  while (batch.empty() || reader.buffered()) {
    absl::StatusOr<const LocalFrame*> frame = reader.Next();
    const SegmentSpan& span = place_->span;
    if (frame.ok() && reader.offset() >= span.end_offset && reader.position() != span.end) {
      frame = PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the frames end differently than the footer says",
                         span.segment->path(), place_->offset, batch.after.lsn + 1);
    }
    // What was read before the damage can still be used; the next call meets it again.
    if (!frame.ok() && !batch.empty()) break;
    if (!frame.ok()) return std::move(frame).status();
    if (*frame == nullptr) break;
    const absl::string_view shipped = (*frame)->frame.shipped;
    if (!batch.empty() && batch.bytes.size() + shipped.size() > max_bytes) break;
    if (batch.empty()) batch.bytes.reserve(std::max(shipped.size(), std::min(max_bytes, kReadBytesMax)));
    batch.bytes.append(shipped.data(), shipped.size());
    batch.after = reader.position();
    place_->offset = reader.offset();
  }
  at_ = batch.after;
  return batch;
}

absl::Status LogCursor::FindPlace() {
  if (!place_.has_value()) {
    TOWLINE_ASSIGN_OR_RETURN(place_, seeker_.Locate(next_lsn()));
  } else if (next_lsn() > place_->span.end.lsn) {
    TOWLINE_ASSIGN_OR_RETURN(SegmentSpan span, view_.Find(next_lsn()));
    if (span.segment == place_->span.segment) {
      place_->span = std::move(span);  // it has grown
    } else {
      place_ = Place{std::move(span), kFramesStart, at_};
      file_.reset();
    }
  }
  if (file_ != nullptr) return absl::OkStatus();
  absl::StatusOr<std::shared_ptr<File>> file = place_->span.segment->OpenFile();
  if (file.ok()) {
    file_ = *std::move(file);
    return absl::OkStatus();
  }
  return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", file.status().message(), place_->span.segment->path(),
                    place_->offset, next_lsn());
}

absl::Status LogCursor::Explain(const absl::Status& status) const {
  const Lsn first = view_.first_lsn();
  if (next_lsn() >= first || absl::IsOutOfRange(status)) {
    if (absl::IsDataLoss(status)) (void)damages_.Note(seeker_.Unreadable(status));
    return status;
  }
  return MakeError(absl::StatusCode::kOutOfRange, "wal_removed",
                   absl::StrCat("LSN ", next_lsn(), " is below the first retained LSN ", first));
}

}  // namespace towline::wal
