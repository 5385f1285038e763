// std::mutex behind Clang's thread-safety annotations.
//
// The core uses this and nothing else for locking: ThreadSanitizer understands std::mutex, and the `clang` preset turns
// a member read without its lock into a compile error.

#ifndef TOWLINE_COMMON_MUTEX_H_
#define TOWLINE_COMMON_MUTEX_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

#if defined(__clang__)
#define TOWLINE_TS_ATTRIBUTE_(x) __attribute__((x))
#else
#define TOWLINE_TS_ATTRIBUTE_(x)
#endif

#define TOWLINE_CAPABILITY(x) TOWLINE_TS_ATTRIBUTE_(capability(x))
#define TOWLINE_SCOPED_CAPABILITY TOWLINE_TS_ATTRIBUTE_(scoped_lockable)
#define TOWLINE_GUARDED_BY(x) TOWLINE_TS_ATTRIBUTE_(guarded_by(x))
#define TOWLINE_PT_GUARDED_BY(x) TOWLINE_TS_ATTRIBUTE_(pt_guarded_by(x))
#define TOWLINE_REQUIRES(...) TOWLINE_TS_ATTRIBUTE_(requires_capability(__VA_ARGS__))
#define TOWLINE_EXCLUDES(...) TOWLINE_TS_ATTRIBUTE_(locks_excluded(__VA_ARGS__))
#define TOWLINE_ACQUIRE(...) TOWLINE_TS_ATTRIBUTE_(acquire_capability(__VA_ARGS__))
#define TOWLINE_RELEASE(...) TOWLINE_TS_ATTRIBUTE_(release_capability(__VA_ARGS__))
#define TOWLINE_NO_THREAD_SAFETY_ANALYSIS TOWLINE_TS_ATTRIBUTE_(no_thread_safety_analysis)

namespace towline {

class TOWLINE_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() TOWLINE_ACQUIRE() { mutex_.lock(); }
  void Unlock() TOWLINE_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a mutex for a scope.
class TOWLINE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) TOWLINE_ACQUIRE(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() TOWLINE_RELEASE() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

// A condition variable for Mutex. Wake-ups may be spurious: wait in a loop over the condition.
class CondVar {
 public:
  void Wait(Mutex* mutex) TOWLINE_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }

  // Returns false on timeout. `micros` <= 0 returns false at once.
  bool WaitFor(Mutex* mutex, int64_t micros) TOWLINE_REQUIRES(mutex);

  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace towline

#endif  // TOWLINE_COMMON_MUTEX_H_
