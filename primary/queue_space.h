// How much a queue of writes may hold.

#ifndef TOWLINE_PRIMARY_QUEUE_SPACE_H_
#define TOWLINE_PRIMARY_QUEUE_SPACE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "common/mutex.h"

namespace towline {

// Threads: all methods from any thread; callbacks are called without locks of this class.
class QueueSpace {
 public:
  explicit QueueSpace(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // False: there is no room now. A piece larger than the whole has room when nothing else is there.
  bool Take(uint64_t bytes) TOWLINE_EXCLUDES(mutex_);

  // Gives back what was taken; calls who waits if at least half is free then.
  void Give(uint64_t bytes) TOWLINE_EXCLUDES(mutex_);

  // Calls `fn` once: now if nothing is taken, else when at least half is free, or at Open.
  void NotifyHalfFree(std::function<void()> fn) TOWLINE_EXCLUDES(mutex_);

  // The queue takes nothing more: nobody is kept waiting, now or later.
  void Open() TOWLINE_EXCLUDES(mutex_);

  uint64_t taken() const TOWLINE_EXCLUDES(mutex_);

 private:
  const uint64_t bytes_max_;
  mutable Mutex mutex_;
  uint64_t taken_ TOWLINE_GUARDED_BY(mutex_) = 0;
  bool open_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> waiters_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_QUEUE_SPACE_H_
