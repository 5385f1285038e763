// What is known to be damaged in an open log. Internal to wal.

#ifndef TOWLINE_WAL_DAMAGE_LIST_H_
#define TOWLINE_WAL_DAMAGE_LIST_H_

#include <vector>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "wal/spool.h"

namespace towline::wal {

// The range that an error about a place in the log speaks of: one record, or none if no LSN is known.
DamagedRange RangeOf(const absl::Status& status);

// Threads: all methods from any thread.
class DamageList {
 public:
  // A reader met damage. Records that are known to be damaged change nothing. True if it was news.
  bool Note(const DamagedRange& range) TOWLINE_EXCLUDES(mutex_);

  // A segment was checked as a whole: `ranges` is all its damage.
  void Replace(Lsn segment_first, Lsn segment_last, std::vector<DamagedRange> ranges) TOWLINE_EXCLUDES(mutex_);

  // Records below `lsn` are removed.
  void RemoveBelow(Lsn lsn) TOWLINE_EXCLUDES(mutex_);

  // By first LSN.
  std::vector<DamagedRange> Get() const TOWLINE_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::vector<DamagedRange> ranges_ TOWLINE_GUARDED_BY(mutex_);  // by first LSN
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_DAMAGE_LIST_H_
