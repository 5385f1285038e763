#include "common/executor.h"

#include <algorithm>
#include <cstdint>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "common/check.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace towline {
namespace {

constexpr int kBackgroundNice = 10;
constexpr uint64_t kPromptTurnNanos = 100000;  // the shortest that there is

// Source: sched_setattr(2). The C library has neither this nor the call.
struct SchedAttributes {
  uint32_t size = sizeof(SchedAttributes);
  uint32_t policy = SCHED_OTHER;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_nanos = 0;  // of SCHED_OTHER: how long a turn is; 0 = as the machine has it
  uint64_t deadline_nanos = 0;
  uint64_t period_nanos = 0;
};

// Longer waits are cut into pieces of this size, which keeps every time point within range.
constexpr int64_t kWaitPieceMicros = int64_t{3600} * 1000000;

class ThreadLoop : public Loop {
 public:
  ThreadLoop(std::string name, std::function<StepResult()> step, LoopPriority priority) : step_(std::move(step)) {
    thread_ = std::thread([this, priority] {
      SetThreadPriority(priority);
      Run();
    });
    name.resize(std::min<size_t>(name.size(), 15));
    pthread_setname_np(thread_.native_handle(), name.c_str());
  }

  ~ThreadLoop() override { ThreadLoop::Stop(); }

  void Wake() override {
    MutexLock lock(&mutex_);
    woken_ = true;
    changed_.NotifyOne();
  }

  void Stop() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      changed_.NotifyOne();
    }
    MutexLock lock(&join_mutex_);
    if (!thread_.joinable()) return;
    TOWLINE_CHECK(thread_.get_id() != std::this_thread::get_id());
    thread_.join();
  }

 private:
  void Run() {
    while (TakeTurn()) {
      const StepResult result = step_();
      if (!result.again) Wait(result.wait_micros);
    }
  }

  // Forgets the wakes so far, which the step that follows answers. False once the loop is stopped.
  bool TakeTurn() TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    woken_ = false;
    return !stopping_;
  }

  // Returns after `micros` (never, if negative) or at a wake or stop since TakeTurn.
  void Wait(int64_t micros) TOWLINE_EXCLUDES(mutex_) {
    const int64_t start = SystemClock()->MonotonicMicros();
    MutexLock lock(&mutex_);
    while (!woken_ && !stopping_) {
      if (micros < 0) {
        changed_.Wait(&mutex_);
        continue;
      }
      const int64_t left = micros - (SystemClock()->MonotonicMicros() - start);
      if (left <= 0) return;
      changed_.WaitFor(&mutex_, std::min(left, kWaitPieceMicros));
    }
  }

  const std::function<StepResult()> step_;
  Mutex mutex_;
  CondVar changed_;
  bool woken_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool stopping_ TOWLINE_GUARDED_BY(mutex_) = false;
  Mutex join_mutex_;  // several threads may stop one loop
  std::thread thread_ TOWLINE_GUARDED_BY(join_mutex_);
};

class ThreadExecutor : public Executor {
 public:
  using Executor::Start;
  std::unique_ptr<Loop> Start(std::string name, std::function<StepResult()> step, LoopPriority priority) override {
    return std::make_unique<ThreadLoop>(std::move(name), std::move(step), priority);
  }
};

// Of the calling thread, which is of SCHED_OTHER.
void SetTurn(uint64_t nanos) {
  SchedAttributes attributes;
  attributes.nice = getpriority(PRIO_PROCESS, 0);  // as it is
  attributes.runtime_nanos = nanos;
  (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace

void SetThreadPriority(LoopPriority priority) {
  const bool polite = priority == LoopPriority::kBatch || priority == LoopPriority::kBackground;
  const sched_param none{};
  (void)pthread_setschedparam(pthread_self(), polite ? SCHED_BATCH : SCHED_OTHER, &none);
  if (priority == LoopPriority::kBackground) (void)setpriority(PRIO_PROCESS, 0, kBackgroundNice);
  if (priority == LoopPriority::kPrompt) SetTurn(kPromptTurnNanos);
}

std::unique_ptr<Executor> NewThreadExecutor() { return std::make_unique<ThreadExecutor>(); }

}  // namespace towline
