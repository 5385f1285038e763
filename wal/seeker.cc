#include "wal/seeker.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/failpoint.h"
#include "wal/frame_reader.h"

namespace towline::wal {
namespace {

// One read covers an index interval of the default size and the frame behind it.
constexpr size_t kScanReadBytes = 80 << 10;

absl::StatusOr<std::shared_ptr<File>> OpenForReading(const SegmentSpan& span) {
  absl::StatusOr<std::shared_ptr<File>> file = span.segment->OpenFile();
  if (file.ok()) return file;
  return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", file.status().message(), span.segment->path(), 0,
                    span.first_lsn());
}

}  // namespace

absl::StatusOr<Place> Seeker::Locate(Lsn lsn) {
  absl::StatusOr<Place> place = LocateOnce(lsn);
  // A segment may go while it is looked into.
  if (!place.ok() && lsn < view_.first_lsn()) return view_.Find(lsn).status();
  return place;
}

absl::StatusOr<Place> Seeker::LocateOnce(Lsn lsn) {
  TOWLINE_ASSIGN_OR_RETURN(SegmentSpan span, view_.Find(lsn));
  if (lsn == span.first_lsn()) return Place{span, kFramesStart, span.segment->header().before};
  if (lsn == span.end.lsn + 1) return Place{span, span.end_offset, span.end};
  // The record in front of it tells term and commit time.
  IndexEntry entry;
  if (view_.NewestFloor(span, lsn - 1, &entry)) return ScanToLsn(span, entry, lsn);
  if (!span.sealed) {  // it was the newest segment a moment ago
    TOWLINE_ASSIGN_OR_RETURN(span, view_.Find(lsn));
  }
  const SharedIndex index = indexes_.Get(span);
  if (index != nullptr) {
    absl::StatusOr<Place> place = ScanToLsn(span, FloorOfLsn(*index, lsn - 1), lsn);
    if (place.ok() || Failpoint("wal_trust_index")) return place;
  }
  const BuiltIndex built = indexes_.Rebuild(span);
  if (built.end.lsn + 1 < lsn) return built.damage;
  return ScanToLsn(span, FloorOfLsn(built.entries, lsn - 1), lsn);
}

absl::StatusOr<Place> Seeker::ScanToLsn(const SegmentSpan& span, const IndexEntry& entry, Lsn lsn) {
  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, OpenForReading(span));
  std::string buffer;
  FrameReader reader(*file, span, entry.offset, FrameReader::UnknownTerm(entry), kScanReadBytes, &buffer);
  while (reader.position().lsn + 1 < lsn) {
    TOWLINE_ASSIGN_OR_RETURN(const LocalFrame* const frame, reader.Next());
    if (frame == nullptr) {
      return PlaceError(absl::StatusCode::kDataLoss, "wal_damaged", "the log ends early", span.segment->path(),
                        reader.offset(), lsn);
    }
  }
  return Place{span, reader.offset(), reader.position()};
}

absl::StatusOr<Place> Seeker::LocateAtEntry(Lsn lsn) {
  TOWLINE_ASSIGN_OR_RETURN(SegmentSpan span, view_.Find(lsn));
  const SharedIndex index = span.sealed ? indexes_.Get(span) : nullptr;
  if (index == nullptr || index->empty()) return absl::NotFoundError("the segment has no index");
  const IndexEntry& entry = FloorOfLsn(*index, lsn);
  if (entry.lsn != lsn) return absl::NotFoundError("no index entry points to the record");
  return Place{std::move(span), entry.offset, FrameReader::UnknownTerm(entry)};
}

absl::StatusOr<Lsn> Seeker::SeekTime(int64_t time_us) {
  while (true) {
    const SegmentSpan span = view_.FindTime(time_us);
    absl::StatusOr<Lsn> lsn = SeekTimeIn(span, time_us);
    // A segment may go while it is looked into.
    if (lsn.ok() || span.first_lsn() >= view_.first_lsn()) return lsn;
  }
}

absl::StatusOr<Lsn> Seeker::SeekTimeIn(SegmentSpan span, int64_t time_us) {
  if (span.end.lsn < span.first_lsn() || span.segment->header().before.commit_time_us >= time_us) {
    return span.first_lsn();
  }
  if (span.end.commit_time_us < time_us) return span.end.lsn + 1;
  IndexEntry entry;
  if (view_.NewestFloorOfTime(span, time_us, &entry)) return ScanToTime(span, entry, time_us);
  if (!span.sealed) span = view_.FindTime(time_us);  // it was the newest segment a moment ago
  const SharedIndex index = indexes_.Get(span);
  if (index != nullptr) {
    absl::StatusOr<Lsn> lsn = ScanToTime(span, FloorOfTime(*index, time_us), time_us);
    if (lsn.ok()) return lsn;
  }
  const BuiltIndex built = indexes_.Rebuild(span);
  if (built.end.commit_time_us < time_us) return built.damage;
  return ScanToTime(span, FloorOfTime(built.entries, time_us), time_us);
}

absl::StatusOr<Lsn> Seeker::ScanToTime(const SegmentSpan& span, const IndexEntry& entry, int64_t time_us) {
  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, OpenForReading(span));
  std::string buffer;
  FrameReader reader(*file, span, entry.offset, FrameReader::UnknownTerm(entry), kScanReadBytes, &buffer);
  while (true) {
    TOWLINE_ASSIGN_OR_RETURN(const LocalFrame* const frame, reader.Next());
    if (frame == nullptr) return span.end.lsn + 1;
    const ShippedHeader& header = frame->frame.header;
    if (header.lsn == entry.lsn && header.commit_time_us != entry.commit_time_us) {
      return absl::DataLossError("index entry and frame disagree");
    }
    if (header.commit_time_us >= time_us) return header.lsn;
  }
}

DamagedRange Seeker::Unreadable(const absl::Status& damage) {
  DamagedRange range = RangeOf(damage);
  const absl::StatusOr<SegmentSpan> span = view_.Find(range.first_lsn);
  if (!span.ok() || !span->sealed) return range;
  const SharedIndex index = indexes_.Get(*span);
  const IndexEntry* const next = index == nullptr ? nullptr : EntryBehind(*index, range.first_lsn);
  range.last_lsn = next == nullptr ? span->end.lsn : next->lsn - 1;
  return range;
}

uint64_t Seeker::BytesBehind(Lsn lsn) {
  if (lsn >= view_.end().lsn) return 0;
  const Lsn first = view_.first_lsn();
  const Lsn next = std::max(lsn + 1, first);
  absl::StatusOr<SegmentSpan> span = view_.Find(next);
  if (!span.ok()) return view_.log_bytes();  // removed in this moment
  IndexEntry entry;
  entry.offset = kFramesStart;
  if (next != span->first_lsn() && !view_.NewestFloor(*span, next, &entry)) {
    if (!span->sealed) span = view_.Find(next);
    if (!span.ok()) return view_.log_bytes();
    const SharedIndex index = indexes_.Get(*span);
    if (index != nullptr) {
      entry = FloorOfLsn(*index, next);
    } else if (const BuiltIndex built = indexes_.Rebuild(*span); !built.entries.empty()) {
      entry = FloorOfLsn(built.entries, next);
    }
  }
  // Read last: the log end only moves away.
  return view_.log_bytes() - span->segment->log_start() - (entry.offset - kFramesStart);
}

}  // namespace towline::wal
