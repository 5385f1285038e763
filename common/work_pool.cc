#include "common/work_pool.h"

#include <deque>
#include <pthread.h>
#include <thread>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/mutex.h"

namespace towline {
namespace {

class ThreadWorkPool : public WorkPool {
 public:
  ThreadWorkPool(std::string name, int threads, size_t queue_max, LoopPriority priority) : queue_max_(queue_max) {
    TOWLINE_CHECK(threads > 0);
    if (name.size() > 15) name.resize(15);
    MutexLock lock(&join_mutex_);
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this, priority] {
        SetThreadPriority(priority);
        Run();
      });
      pthread_setname_np(threads_.back().native_handle(), name.c_str());
    }
  }

  ~ThreadWorkPool() override { ThreadWorkPool::Stop(); }

  bool Submit(std::function<void()> task) override {
    MutexLock lock(&mutex_);
    if (stopping_ || queue_.size() >= queue_max_) return false;
    queue_.push_back(std::move(task));
    changed_.NotifyOne();
    return true;
  }

  void Stop() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.NotifyAll();
    }
    MutexLock lock(&join_mutex_);
    for (std::thread& thread : threads_) {
      TOWLINE_CHECK(thread.get_id() != std::this_thread::get_id());
      thread.join();
    }
    threads_.clear();
  }

 private:
  void Run() {
    std::function<void()> task;
    while (Take(&task)) {
      task();
      task = nullptr;  // what it captured goes now, not when the next task arrives
    }
  }

  // Waits for a task. False when the pool is stopped and nothing is queued.
  bool Take(std::function<void()>* task) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    while (queue_.empty() && !stopping_) changed_.Wait(&mutex_);
    if (queue_.empty()) return false;
    *task = std::move(queue_.front());
    queue_.pop_front();
    return true;
  }

  const size_t queue_max_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> queue_ TOWLINE_GUARDED_BY(mutex_);
  bool stopping_ TOWLINE_GUARDED_BY(mutex_) = false;
  Mutex join_mutex_;  // several threads may stop one pool
  std::vector<std::thread> threads_ TOWLINE_GUARDED_BY(join_mutex_);
};

}  // namespace

std::unique_ptr<WorkPool> NewThreadWorkPool(std::string name, int threads, size_t queue_max, LoopPriority priority) {
  return std::make_unique<ThreadWorkPool>(std::move(name), threads, queue_max, priority);
}

}  // namespace towline
