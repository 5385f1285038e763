// Positions from which records have to stay, in memory. Internal to wal.

#ifndef TOWLINE_WAL_PINS_H_
#define TOWLINE_WAL_PINS_H_

#include <algorithm>
#include <cstdint>
#include <map>

#include "common/mutex.h"
#include "common/types.h"

namespace towline::wal {

// Threads: all methods from any thread.
class Pins {
 public:
  uint64_t Add(Lsn first_needed) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    pins_[++last_id_] = first_needed;
    return last_id_;
  }
  void Move(uint64_t id, Lsn first_needed) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    pins_[id] = first_needed;
  }
  void Remove(uint64_t id) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    pins_.erase(id);
  }
  // The lowest of `lsn` and all pins.
  Lsn Lowest(Lsn lsn) const TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    for (const auto& [id, pinned] : pins_) lsn = std::min(lsn, pinned);
    return lsn;
  }

 private:
  mutable Mutex mutex_;
  std::map<uint64_t, Lsn> pins_ TOWLINE_GUARDED_BY(mutex_);
  uint64_t last_id_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_PINS_H_
