#include "wal/log_view.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/error.h"

namespace towline::wal {

LogView::LogView(const LogEnd& base, uint64_t tail_cache_bytes) : base_(base), tail_cache_bytes_(tail_cache_bytes) {}

void LogView::AddSegment(SegmentSpan span, IndexEntries index) {
  MutexLock lock(&mutex_);
  if (!segments_.empty()) {
    if (segments_.back().first_lsn() == span.first_lsn()) {
      TOWLINE_CHECK(segments_.back().end.lsn < span.first_lsn());
      segments_.pop_back();
    } else {
      segments_.back().sealed = true;
    }
  }
  segments_.push_back(std::move(span));
  newest_index_ = std::move(index);
}

void LogView::Publish(std::shared_ptr<const FrameGroup> group, uint64_t end_offset, const IndexEntries& more_index) {
  MutexLock lock(&mutex_);
  SegmentSpan& newest = segments_.back();
  newest.end = group->after;
  newest.end_offset = end_offset;
  newest_index_.insert(newest_index_.end(), more_index.begin(), more_index.end());
  tail_bytes_ += group->bytes.capacity();
  tail_.push_back(std::move(group));
  while (!tail_.empty() && tail_bytes_ > tail_cache_bytes_) {
    tail_bytes_ -= tail_.front()->bytes.capacity();
    tail_.pop_front();
  }
}

LogEnd LogView::end() const {
  MutexLock lock(&mutex_);
  return segments_.empty() ? base_ : segments_.back().end;
}

Lsn LogView::first_lsn() const {
  MutexLock lock(&mutex_);
  return segments_.empty() ? base_.lsn + 1 : segments_.front().first_lsn();
}

absl::StatusOr<SegmentSpan> LogView::Find(Lsn lsn) const {
  MutexLock lock(&mutex_);
  const Lsn first = segments_.front().first_lsn();
  const Lsn last = segments_.back().end.lsn;
  if (lsn < first) {
    return MakeError(absl::StatusCode::kOutOfRange, "wal_removed",
                     absl::StrCat("LSN ", lsn, " is below the first retained LSN ", first));
  }
  if (lsn > last + 1) {
    return MakeError(absl::StatusCode::kOutOfRange, "beyond_end",
                     absl::StrCat("LSN ", lsn, " is above the last durable LSN ", last));
  }
  const auto above = std::upper_bound(segments_.begin(), segments_.end(), lsn,
                                      [](Lsn value, const SegmentSpan& span) { return value < span.first_lsn(); });
  return *std::prev(above);
}

SegmentSpan LogView::FindTime(int64_t time_us) const {
  MutexLock lock(&mutex_);
  const auto not_before = std::lower_bound(
      segments_.begin(), segments_.end(), time_us,
      [](const SegmentSpan& span, int64_t value) { return span.segment->header().before.commit_time_us < value; });
  return not_before == segments_.begin() ? segments_.front() : *std::prev(not_before);
}

bool LogView::NewestFloor(const SegmentSpan& span, Lsn lsn, IndexEntry* entry) const {
  MutexLock lock(&mutex_);
  if (!IsNewest(span) || newest_index_.empty()) return false;
  *entry = FloorOfLsn(newest_index_, lsn);
  return true;
}

bool LogView::NewestFloorOfTime(const SegmentSpan& span, int64_t time_us, IndexEntry* entry) const {
  MutexLock lock(&mutex_);
  if (!IsNewest(span) || newest_index_.empty()) return false;
  *entry = FloorOfTime(newest_index_, time_us);
  return true;
}

TailLookup LogView::Tail(Lsn from, size_t max_bytes, std::vector<std::shared_ptr<const FrameGroup>>* groups) const {
  MutexLock lock(&mutex_);
  if (from > segments_.back().end.lsn) return TailLookup::kAtEnd;
  if (tail_.empty() || from < tail_.front()->first_lsn()) return TailLookup::kOnDisk;
  auto group = std::upper_bound(tail_.begin(), tail_.end(), from,
                                [](Lsn value, const auto& candidate) { return value < candidate->first_lsn(); });
  --group;
  for (size_t bytes = 0; group != tail_.end(); ++group) {
    groups->push_back(*group);
    // What lies in front of `from` in the first group does not count.
    if (groups->size() > 1 || (*group)->first_lsn() == from) bytes += (*group)->bytes.size();
    if (bytes >= max_bytes) break;
  }
  return TailLookup::kCached;
}

uint64_t LogView::log_bytes() const {
  MutexLock lock(&mutex_);
  return segments_.back().segment->log_start() + segments_.back().frame_bytes();
}

Lsn LogView::FirstToKeep(Lsn first_needed, uint64_t keep_bytes) const {
  MutexLock lock(&mutex_);
  const uint64_t log_end = segments_.back().segment->log_start() + segments_.back().frame_bytes();
  for (const SegmentSpan& span : segments_) {
    const uint64_t behind = log_end - span.segment->log_start() - span.frame_bytes();
    if (!span.sealed || span.end.lsn >= first_needed || behind < keep_bytes) return span.first_lsn();
  }
  return segments_.back().first_lsn();
}

std::vector<SegmentSpan> LogView::RemoveBelow(Lsn first_lsn, const Pins& pins) {
  MutexLock lock(&mutex_);
  first_lsn = pins.Lowest(first_lsn);
  std::vector<SegmentSpan> removed;
  while (segments_.size() > 1 && segments_.front().end.lsn < first_lsn) {
    removed.push_back(std::move(segments_.front()));
    segments_.pop_front();
  }
  return removed;
}

std::vector<SegmentSpan> LogView::Segments() const {
  MutexLock lock(&mutex_);
  return {segments_.begin(), segments_.end()};
}

bool LogView::IsNewest(const SegmentSpan& span) const { return segments_.back().segment == span.segment; }

}  // namespace towline::wal
