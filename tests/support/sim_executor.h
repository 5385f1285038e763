// Loops that run when a test says so, in an order that a seed decides.
//
//   FakeClock clock;
//   SimExecutor executor(&clock, seed);
//   auto loop = executor.Start("puller", step);
//   executor.RunUntilIdle();
//   executor.AdvanceTime(1000000);  // runs what falls due on the way

#ifndef TOWLINE_TESTS_SUPPORT_SIM_EXECUTOR_H_
#define TOWLINE_TESTS_SUPPORT_SIM_EXECUTOR_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/executor.h"
#include "common/mutex.h"
#include "common/work_pool.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_rng.h"

namespace towline::test {

// Threads: Start, Wake and Stop from any thread; everything else from one thread. A step may start, wake and stop other
// loops, and must not run or advance the executor.
class SimExecutor : public Executor {
 public:
  // Neither is owned; `clock` must outlive the executor.
  explicit SimExecutor(FakeClock* clock, uint64_t seed = 1);
  ~SimExecutor() override;

  using Executor::Start;
  std::unique_ptr<Loop> Start(std::string name, std::function<StepResult()> step, LoopPriority priority) override;

  // Steps one loop that is due, if any. Returns whether there was one.
  bool StepOne();

  // Steps every loop that is due now once. Returns how many.
  int StepAll();

  // Steps until no loop is due without time passing. False if that is not so after `steps_max` steps.
  bool RunUntilIdle(int64_t steps_max = 1000000);

  // Steps until `done` returns true, moving the clock to the next timer when nothing is due. False if nothing is left
  // to do, or `micros_max` passed, before that.
  bool RunUntil(const std::function<bool()>& done, int64_t micros_max);

  // Moves the clock by `micros`, and runs until idle at each timer on the way and at the end.
  void AdvanceTime(int64_t micros);

  // Microseconds until the next timer; 0 if a loop is due, -1 if none ever will be without a wake.
  int64_t NextDueMicros();

  // Name of the loop that stepped last.
  const std::string& last_stepped() const { return last_stepped_; }

 private:
  class SimLoop;
  struct LoopState;

  std::vector<std::shared_ptr<LoopState>> Due();
  void Step(const std::shared_ptr<LoopState>& state);

  FakeClock* const clock_;
  SeededRng rng_;
  Mutex mutex_;
  std::vector<std::shared_ptr<LoopState>> loops_ TOWLINE_GUARDED_BY(mutex_);
  std::string last_stepped_;
};

// A WorkPool whose tasks run as steps of a SimExecutor's loop, one task per step.
class SimWorkPool : public WorkPool {
 public:
  explicit SimWorkPool(SimExecutor* executor, size_t queue_max = 1000);
  ~SimWorkPool() override;

  bool Submit(std::function<void()> task) override;
  void Stop() override;

 private:
  StepResult RunOne();

  const size_t queue_max_;
  Mutex mutex_;
  std::deque<std::function<void()>> queue_ TOWLINE_GUARDED_BY(mutex_);
  bool stopped_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Loop> loop_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_SIM_EXECUTOR_H_
