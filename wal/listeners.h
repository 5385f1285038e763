// Callbacks that the appending thread makes. Internal to wal.

#ifndef TOWLINE_WAL_LISTENERS_H_
#define TOWLINE_WAL_LISTENERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "common/types.h"

namespace towline::wal {

// Threads: all methods from any thread; Remove not from inside the listener that it removes.
class Listeners {
 public:
  uint64_t Add(std::function<void(Lsn)> fn) TOWLINE_EXCLUDES(mutex_) {
    auto listener = std::make_shared<Listener>(std::move(fn));
    MutexLock lock(&mutex_);
    listeners_[++last_id_] = std::move(listener);
    return last_id_;
  }

  // Returns when no call of the listener is running, and none follows.
  void Remove(uint64_t id) TOWLINE_EXCLUDES(mutex_) {
    std::shared_ptr<Listener> listener;
    {
      MutexLock lock(&mutex_);
      const auto found = listeners_.find(id);
      if (found == listeners_.end()) return;
      listener = std::move(found->second);
      listeners_.erase(found);
    }
    MutexLock lock(&listener->mutex);
    listener->fn = nullptr;
  }

  void Call(Lsn lsn) TOWLINE_EXCLUDES(mutex_) {
    std::vector<std::shared_ptr<Listener>> all;
    {
      MutexLock lock(&mutex_);
      for (const auto& [id, listener] : listeners_) all.push_back(listener);
    }
    for (const auto& listener : all) {
      MutexLock lock(&listener->mutex);
      if (listener->fn) listener->fn(lsn);
    }
  }

 private:
  struct Listener {
    explicit Listener(std::function<void(Lsn)> call) : fn(std::move(call)) {}

    Mutex mutex;  // held during a call, and by no one who holds mutex_
    std::function<void(Lsn)> fn TOWLINE_GUARDED_BY(mutex);
  };

  Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Listener>> listeners_ TOWLINE_GUARDED_BY(mutex_);
  uint64_t last_id_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_LISTENERS_H_
