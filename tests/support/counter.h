// A number that threads raise and a test waits for.

#ifndef TOWLINE_TESTS_SUPPORT_COUNTER_H_
#define TOWLINE_TESTS_SUPPORT_COUNTER_H_

#include <cstdint>

#include "common/clock.h"
#include "common/mutex.h"

namespace towline::test {

// Time after which a test gives up waiting. Long, because machines are busy; no passing test waits for it.
inline constexpr int64_t kPatienceMicros = int64_t{30} * 1000000;

// Threads: all methods from any thread.
class Counter {
 public:
  void Add(int64_t n = 1) {
    MutexLock lock(&mutex_);
    value_ += n;
    changed_.NotifyAll();
  }

  int64_t value() const {
    MutexLock lock(&mutex_);
    return value_;
  }

  // Returns whether the value is at least `value` before `micros` pass.
  bool WaitFor(int64_t value, int64_t micros = kPatienceMicros) {
    const int64_t end = SystemClock()->MonotonicMicros() + micros;
    MutexLock lock(&mutex_);
    while (value_ < value) {
      const int64_t left = end - SystemClock()->MonotonicMicros();
      if (left <= 0) return false;
      changed_.WaitFor(&mutex_, left);
    }
    return true;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  int64_t value_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_COUNTER_H_
