#include "primary/queue_space.h"

#include <utility>

namespace towline {

bool QueueSpace::Take(uint64_t bytes) {
  MutexLock lock(&mutex_);
  if (taken_ != 0 && taken_ + bytes > bytes_max_) return false;
  taken_ += bytes;
  return true;
}

void QueueSpace::Give(uint64_t bytes) {
  std::vector<std::function<void()>> waiters;
  {
    MutexLock lock(&mutex_);
    taken_ -= bytes;
    if (taken_ <= bytes_max_ / 2) waiters.swap(waiters_);
  }
  for (const auto& waiter : waiters) waiter();
}

void QueueSpace::NotifyHalfFree(std::function<void()> fn) {
  {
    MutexLock lock(&mutex_);
    if (taken_ != 0 && !open_) {
      waiters_.push_back(std::move(fn));
      return;
    }
  }
  fn();
}

void QueueSpace::Open() {
  std::vector<std::function<void()>> waiters;
  {
    MutexLock lock(&mutex_);
    open_ = true;
    waiters.swap(waiters_);
  }
  for (const auto& waiter : waiters) waiter();
}

uint64_t QueueSpace::taken() const {
  MutexLock lock(&mutex_);
  return taken_;
}

}  // namespace towline
