// Finds records on disk: two binary searches, then a scan of at most one index interval. Internal to wal.

#ifndef TOWLINE_WAL_SEEKER_H_
#define TOWLINE_WAL_SEEKER_H_

#include <cstdint>

#include "absl/status/statusor.h"

#include "common/types.h"
#include "wal/damage_list.h"
#include "wal/index_store.h"
#include "wal/log_view.h"
#include "wal/segment.h"

namespace towline::wal {

// Where record before.lsn + 1 starts.
struct Place {
  SegmentSpan span;
  uint64_t offset = 0;
  LogEnd before;
};

// Threads: all methods from any thread.
class Seeker {
 public:
  Seeker(LogView& view, IndexStore& indexes) : view_(view), indexes_(indexes) {}

  // The place of record `lsn`, first retained <= lsn <= end + 1. Errors as LogView::Find; DATA_LOSS, reason
  // wal_damaged.
  absl::StatusOr<Place> Locate(Lsn lsn);

  // The same where the record in front of it is damaged: `before` tells LSN and chain only (FrameReader::UnknownTerm).
  // NOT_FOUND: no index entry points to the record.
  absl::StatusOr<Place> LocateAtEntry(Lsn lsn);

  // First record with commit time >= `time_us`; one behind the end if there is none.
  absl::StatusOr<Lsn> SeekTime(int64_t time_us);

  // What `damage`, which a reader met, keeps from being read: in a sealed segment all up to the next index entry, where
  // the next search can begin.
  DamagedRange Unreadable(const absl::Status& damage);

  // Bytes of log behind record `lsn`, at most one index interval too many.
  uint64_t BytesBehind(Lsn lsn);

 private:
  absl::StatusOr<Place> LocateOnce(Lsn lsn);
  absl::StatusOr<Lsn> SeekTimeIn(SegmentSpan span, int64_t time_us);
  // Reads from `entry` on until the next record is `lsn`.
  absl::StatusOr<Place> ScanToLsn(const SegmentSpan& span, const IndexEntry& entry, Lsn lsn);
  // Reads from `entry` on until the next record is as new as `time_us`.
  absl::StatusOr<Lsn> ScanToTime(const SegmentSpan& span, const IndexEntry& entry, int64_t time_us);

  LogView& view_;
  IndexStore& indexes_;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SEEKER_H_
