#include "common/mutex.h"

#include <chrono>

namespace towline {

// Not inline: the wait reads the clock, and only this layer may.
bool CondVar::WaitFor(Mutex* mutex, int64_t micros) {
  std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
  const bool woken = cv_.wait_for(lock, std::chrono::microseconds(micros)) == std::cv_status::no_timeout;
  lock.release();
  return woken;
}

}  // namespace towline
