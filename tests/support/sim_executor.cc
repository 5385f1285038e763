#include "tests/support/sim_executor.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace towline::test {

// Guarded by the executor's mutex, but for name and step.
struct SimExecutor::LoopState {
  std::string name;
  std::function<StepResult()> step;
  bool due = true;
  bool running = false;
  bool stopped = false;
  int64_t due_at = -1;  // monotonic microseconds; -1 = no timer
};

class SimExecutor::SimLoop : public Loop {
 public:
  SimLoop(SimExecutor* executor, std::shared_ptr<LoopState> state) : executor_(*executor), state_(std::move(state)) {}
  ~SimLoop() override { SimLoop::Stop(); }

  void Wake() override {
    MutexLock lock(&executor_.mutex_);
    state_->due = true;
  }

  void Stop() override {
    MutexLock lock(&executor_.mutex_);
    TOWLINE_CHECK(!state_->running);
    state_->stopped = true;
    auto& loops = executor_.loops_;
    loops.erase(std::remove(loops.begin(), loops.end(), state_), loops.end());
  }

 private:
  SimExecutor& executor_;
  const std::shared_ptr<LoopState> state_;
};

SimExecutor::SimExecutor(FakeClock* clock, uint64_t seed) : clock_(clock), rng_(seed) {}

SimExecutor::~SimExecutor() {
  MutexLock lock(&mutex_);
  TOWLINE_CHECK(loops_.empty());  // loops must not outlive their executor
}

std::unique_ptr<Loop> SimExecutor::Start(std::string name, std::function<StepResult()> step,
                                         LoopPriority /*priority*/) {
  auto state = std::make_shared<LoopState>();
  state->name = std::move(name);
  state->step = std::move(step);
  MutexLock lock(&mutex_);
  loops_.push_back(state);
  return std::make_unique<SimLoop>(this, std::move(state));
}

std::vector<std::shared_ptr<SimExecutor::LoopState>> SimExecutor::Due() {
  const int64_t now = clock_->MonotonicMicros();
  std::vector<std::shared_ptr<LoopState>> due;
  MutexLock lock(&mutex_);
  for (const auto& state : loops_) {
    if (state->due || (state->due_at >= 0 && state->due_at <= now)) due.push_back(state);
  }
  return due;
}

void SimExecutor::Step(const std::shared_ptr<LoopState>& state) {
  {
    MutexLock lock(&mutex_);
    if (state->stopped) return;  // by a step before this one
    TOWLINE_CHECK(!state->running);
    state->due = false;
    state->due_at = -1;
    state->running = true;
  }
  const StepResult result = state->step();
  last_stepped_ = state->name;
  MutexLock lock(&mutex_);
  state->running = false;
  if (result.again) {
    state->due = true;
  } else if (result.wait_micros >= 0) {
    state->due_at = clock_->MonotonicMicros() + result.wait_micros;
  }
}

bool SimExecutor::StepOne() {
  const auto due = Due();
  if (due.empty()) return false;
  Step(due[rng_.Below(due.size())]);
  return true;
}

int SimExecutor::StepAll() {
  auto due = Due();
  const int count = static_cast<int>(due.size());
  while (!due.empty()) {
    const size_t pick = rng_.Below(due.size());
    Step(due[pick]);
    due.erase(due.begin() + static_cast<std::ptrdiff_t>(pick));
  }
  return count;
}

bool SimExecutor::RunUntilIdle(int64_t steps_max) {
  for (int64_t i = 0; i < steps_max; ++i) {
    if (!StepOne()) return true;
  }
  return Due().empty();
}

bool SimExecutor::RunUntil(const std::function<bool()>& done, int64_t micros_max) {
  const int64_t end = clock_->MonotonicMicros() + micros_max;
  while (!done()) {
    if (StepOne()) continue;
    const int64_t next = NextDueMicros();
    if (next < 0 || clock_->MonotonicMicros() + next > end) return false;
    clock_->Advance(next);
  }
  return true;
}

void SimExecutor::AdvanceTime(int64_t micros) {
  const int64_t end = clock_->MonotonicMicros() + micros;
  while (true) {
    TOWLINE_CHECK(RunUntilIdle());
    const int64_t left = end - clock_->MonotonicMicros();
    const int64_t next = NextDueMicros();
    if (left <= 0) return;
    clock_->Advance(next < 0 ? left : std::min(left, next));
  }
}

int64_t SimExecutor::NextDueMicros() {
  const int64_t now = clock_->MonotonicMicros();
  int64_t next = -1;
  MutexLock lock(&mutex_);
  for (const auto& state : loops_) {
    if (state->due) return 0;
    if (state->due_at < 0) continue;
    const int64_t left = std::max<int64_t>(0, state->due_at - now);
    if (next < 0 || left < next) next = left;
  }
  return next;
}

SimWorkPool::SimWorkPool(SimExecutor* executor, size_t queue_max)
    : queue_max_(queue_max), loop_(executor->Start("work", [this] { return RunOne(); })) {}

SimWorkPool::~SimWorkPool() { SimWorkPool::Stop(); }

bool SimWorkPool::Submit(std::function<void()> task) {
  {
    MutexLock lock(&mutex_);
    if (stopped_ || queue_.size() >= queue_max_) return false;
    queue_.push_back(std::move(task));
  }
  loop_->Wake();
  return true;
}

void SimWorkPool::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
  }
  while (RunOne().again) {
  }
  loop_->Stop();
}

StepResult SimWorkPool::RunOne() {
  std::function<void()> task;
  {
    MutexLock lock(&mutex_);
    if (queue_.empty()) return StepResult::WaitForWake();
    task = std::move(queue_.front());
    queue_.pop_front();
  }
  task();
  return StepResult::Again();
}

}  // namespace towline::test
