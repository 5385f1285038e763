// The durable log in memory: which segments there are, where the log ends, and its newest groups.
//
// The writer publishes to it, cursors look into it, pruning takes segments out of it. Its one mutex is held for list
// operations only. Internal to wal.

#ifndef TOWLINE_WAL_LOG_VIEW_H_
#define TOWLINE_WAL_LOG_VIEW_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "common/types.h"
#include "wal/frame.h"
#include "wal/index.h"
#include "wal/pins.h"
#include "wal/segment.h"

namespace towline::wal {

// Where the records behind a position are.
enum class TailLookup { kAtEnd, kCached, kOnDisk };

// Threads: all methods from any thread.
class LogView {
 public:
  LogView(const LogEnd& base, uint64_t tail_cache_bytes);

  // --- The writer (and recovery, before there are others) ---

  // Adds a segment as the newest one; the newest one so far counts as sealed. A segment that begins where the newest
  // one begins replaces it (which then holds no record). `index` belongs to the frames that it holds already.
  void AddSegment(SegmentSpan span, IndexEntries index) TOWLINE_EXCLUDES(mutex_);

  // The group is durable, up to `end_offset` of the newest segment.
  void Publish(std::shared_ptr<const FrameGroup> group, uint64_t end_offset, const IndexEntries& more_index)
      TOWLINE_EXCLUDES(mutex_);

  // --- Readers ---

  LogEnd end() const TOWLINE_EXCLUDES(mutex_);
  Lsn first_lsn() const TOWLINE_EXCLUDES(mutex_);

  // The segment that holds record `lsn`; the newest one if `lsn` is behind the end by one. OUT_OF_RANGE: reason
  // wal_removed below the first retained record, beyond_end above the end.
  absl::StatusOr<SegmentSpan> Find(Lsn lsn) const TOWLINE_EXCLUDES(mutex_);

  // The last segment before which every record is older than `time_us`, else the first one.
  SegmentSpan FindTime(int64_t time_us) const TOWLINE_EXCLUDES(mutex_);

  // The entry of the newest segment's index at or before record `lsn` or time `time_us`. False if `span` is not the
  // newest segment any more, or holds no record.
  bool NewestFloor(const SegmentSpan& span, Lsn lsn, IndexEntry* entry) const TOWLINE_EXCLUDES(mutex_);
  bool NewestFloorOfTime(const SegmentSpan& span, int64_t time_us, IndexEntry* entry) const TOWLINE_EXCLUDES(mutex_);

  // Groups in memory from record `from` on, until they hold `max_bytes`.
  TailLookup Tail(Lsn from, size_t max_bytes, std::vector<std::shared_ptr<const FrameGroup>>* groups) const
      TOWLINE_EXCLUDES(mutex_);

  // Bytes of frames from the start of the log (see Segment::log_start) to its end.
  uint64_t log_bytes() const TOWLINE_EXCLUDES(mutex_);

  // --- Retention ---

  // The first retained LSN if every sealed segment went that holds nothing at or above `first_needed` and ends at least
  // `keep_bytes` before the end of the log.
  Lsn FirstToKeep(Lsn first_needed, uint64_t keep_bytes) const TOWLINE_EXCLUDES(mutex_);

  // Takes the oldest segments out as long as they end below `first_lsn` and all pins. Whoever pins a position and then
  // still finds it here keeps it.
  std::vector<SegmentSpan> RemoveBelow(Lsn first_lsn, const Pins& pins) TOWLINE_EXCLUDES(mutex_);

  std::vector<SegmentSpan> Segments() const TOWLINE_EXCLUDES(mutex_);

 private:
  bool IsNewest(const SegmentSpan& span) const TOWLINE_REQUIRES(mutex_);

  const LogEnd base_;
  const uint64_t tail_cache_bytes_;
  mutable Mutex mutex_;
  std::deque<SegmentSpan> segments_ TOWLINE_GUARDED_BY(mutex_);  // by first LSN; empty only while opening
  IndexEntries newest_index_ TOWLINE_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<const FrameGroup>> tail_ TOWLINE_GUARDED_BY(mutex_);  // consecutive, up to the end
  uint64_t tail_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_LOG_VIEW_H_
