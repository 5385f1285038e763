#include "common/executor.h"

#include <atomic>
#include <pthread.h>
#include <sched.h>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/counter.h"
#include "tests/support/thread_turn.h"

namespace towline {
namespace {

using test::Counter;
using test::ThreadTurnNanos;

TEST(ThreadExecutorTest, FirstStepComesWithoutAWake) {
  Counter steps;
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("first", [&] {
    steps.Add();
    return StepResult::WaitForWake();
  });
  EXPECT_TRUE(steps.WaitFor(1));
}

TEST(ThreadExecutorTest, AgainStepsAtOnceAndTimersStepAfterTheirTime) {
  Counter steps;
  const auto executor = NewThreadExecutor();
  const int64_t start = SystemClock()->MonotonicMicros();
  const auto loop = executor->Start("timer", [&] {
    steps.Add();
    return steps.value() < 1000 ? StepResult::Again() : StepResult::WaitFor(20000);
  });
  ASSERT_TRUE(steps.WaitFor(1003));
  EXPECT_GE(SystemClock()->MonotonicMicros() - start, 3 * 20000);
}

TEST(ThreadExecutorTest, WakeCutsALongWaitShort) {
  Counter steps;
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("long", [&] {
    steps.Add();
    return StepResult::WaitFor(int64_t{1} << 62);
  });
  ASSERT_TRUE(steps.WaitFor(1));
  loop->Wake();
  EXPECT_TRUE(steps.WaitFor(2));
}

TEST(ThreadExecutorTest, WakeDuringAStepCausesAnotherStep) {
  Counter inside;
  Counter go_on;
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("busy", [&] {
    inside.Add();
    EXPECT_TRUE(go_on.WaitFor(1));
    return StepResult::WaitForWake();
  });
  ASSERT_TRUE(inside.WaitFor(1));
  loop->Wake();
  go_on.Add();
  EXPECT_TRUE(inside.WaitFor(2));
}

TEST(ThreadExecutorTest, AStepMayWakeItsOwnLoop) {
  Counter steps;
  std::atomic<Loop*> self{nullptr};
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("self", [&] {
    steps.Add();
    Loop* const own = self.load();
    if (own != nullptr && steps.value() < 50) own->Wake();
    return StepResult::WaitForWake();
  });
  self = loop.get();
  loop->Wake();
  EXPECT_TRUE(steps.WaitFor(50));
}

// Producers add work and wake; the loop takes what it sees. A lost wake would leave work behind for ever.
TEST(ThreadExecutorTest, NoWakeIsLostUnderLoad) {
  constexpr int kThreads = 4;
  constexpr int kPerThread = 5000;
  std::atomic<int64_t> offered{0};
  Counter taken;
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("taker", [&] {
    taken.Add(offered.exchange(0));
    return StepResult::WaitForWake();
  });
  std::vector<std::thread> producers;
  for (int i = 0; i < kThreads; ++i) {
    producers.emplace_back([&] {
      for (int n = 0; n < kPerThread; ++n) {
        offered.fetch_add(1);
        loop->Wake();
      }
    });
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(taken.WaitFor(int64_t{kThreads} * kPerThread));
}

TEST(ThreadExecutorTest, NoStepRunsAfterStop) {
  std::atomic<bool> stopped{false};
  std::atomic<int> late{0};
  Counter steps;
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("stop", [&] {
    if (stopped) ++late;
    steps.Add();
    return StepResult::Again();
  });
  ASSERT_TRUE(steps.WaitFor(10));
  std::thread other([&] { loop->Stop(); });
  loop->Stop();
  stopped = true;
  other.join();
  loop->Wake();
  loop->Stop();
  EXPECT_EQ(late, 0);
}

TEST(ThreadExecutorTest, DestructorEndsAWaitingLoop) {
  Counter steps;
  const auto executor = NewThreadExecutor();
  {
    const auto loop = executor->Start("gone", [&] {
      steps.Add();
      return StepResult::WaitForWake();
    });
    ASSERT_TRUE(steps.WaitFor(1));
  }
  EXPECT_EQ(steps.value(), 1);
}

TEST(ThreadExecutorTest, ThreadBearsTheFirstFifteenBytesOfTheName) {
  Counter named;
  const auto executor = NewThreadExecutor();
  const auto loop = executor->Start("puller-of-replica-7", [&] {
    char name[32] = {};
    pthread_getname_np(pthread_self(), name, sizeof name);
    if (std::string(name) == "puller-of-repli") named.Add();
    return named.value() > 0 ? StepResult::WaitForWake() : StepResult::WaitFor(1000);
  });
  EXPECT_TRUE(named.WaitFor(1));
}

TEST(ThreadExecutorTest, ABatchLoopDoesNotInterruptOthers) {
  Counter polite;
  const auto executor = NewThreadExecutor();
  const auto step = [&polite] {
    int policy = -1;
    sched_param param{};
    pthread_getschedparam(pthread_self(), &policy, &param);
    if (policy == SCHED_BATCH) polite.Add();
    return polite.value() > 0 ? StepResult::WaitForWake() : StepResult::WaitFor(1000);
  };
  const auto loop = executor->Start("batch", step, LoopPriority::kBatch);
  EXPECT_TRUE(polite.WaitFor(1));
}

TEST(ThreadExecutorTest, APromptLoopGetsShortTurns) {
  if (ThreadTurnNanos() == 0) GTEST_SKIP() << "this kernel does not say how long a turn is";
  Counter prompt;
  const auto executor = NewThreadExecutor();
  const auto step = [&prompt] {
    if (ThreadTurnNanos() == 100000) prompt.Add();
    return prompt.value() > 0 ? StepResult::WaitForWake() : StepResult::WaitFor(1000);
  };
  const auto loop = executor->Start("prompt", step, LoopPriority::kPrompt);
  EXPECT_TRUE(prompt.WaitFor(1));
}

}  // namespace
}  // namespace towline
