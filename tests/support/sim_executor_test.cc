#include "tests/support/sim_executor.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;

TEST(SimExecutorTest, NothingRunsUntilTold) {
  FakeClock clock;
  SimExecutor executor(&clock);
  int steps = 0;
  const auto loop = executor.Start("a", [&] {
    ++steps;
    return StepResult::WaitForWake();
  });
  EXPECT_EQ(steps, 0);
  EXPECT_EQ(executor.StepAll(), 1);
  EXPECT_EQ(executor.StepAll(), 0);
  loop->Wake();
  loop->Wake();
  EXPECT_TRUE(executor.RunUntilIdle());
  EXPECT_EQ(steps, 2);
  EXPECT_EQ(executor.NextDueMicros(), -1);
}

TEST(SimExecutorTest, AWakeDuringAStepCausesAnotherStep) {
  FakeClock clock;
  SimExecutor executor(&clock);
  int steps = 0;
  Loop* self = nullptr;
  const auto loop = executor.Start("a", [&] {
    if (++steps < 5) self->Wake();
    return StepResult::WaitForWake();
  });
  self = loop.get();
  EXPECT_TRUE(executor.RunUntilIdle());
  EXPECT_EQ(steps, 5);
}

TEST(SimExecutorTest, TimersFireInTheOrderOfTheirTimes) {
  FakeClock clock;
  SimExecutor executor(&clock);
  const int64_t start = clock.MonotonicMicros();
  std::vector<std::string> fired;
  const auto every = [&](std::string name, int64_t micros) {
    return executor.Start(name, [&fired, &clock, name, micros, start, first = true]() mutable {
      if (!first) fired.push_back(name + "@" + std::to_string(clock.MonotonicMicros() - start));
      first = false;
      return StepResult::WaitFor(micros);
    });
  };
  const auto slow = every("slow", 50);
  const auto fast = every("fast", 20);
  executor.AdvanceTime(65);
  EXPECT_THAT(fired, ElementsAre("fast@20", "fast@40", "slow@50", "fast@60"));
  EXPECT_EQ(clock.MonotonicMicros() - start, 65);
  EXPECT_EQ(executor.NextDueMicros(), 15);
}

TEST(SimExecutorTest, RunUntilMovesTimeOnlyAsFarAsNeeded) {
  FakeClock clock;
  SimExecutor executor(&clock);
  const int64_t start = clock.MonotonicMicros();
  int steps = 0;
  const auto loop = executor.Start("a", [&] {
    ++steps;
    return StepResult::WaitFor(1000);
  });
  EXPECT_TRUE(executor.RunUntil([&] { return steps == 4; }, 10000));
  EXPECT_EQ(clock.MonotonicMicros() - start, 3000);
  EXPECT_FALSE(executor.RunUntil([] { return false; }, 10000));
}

TEST(SimExecutorTest, TheSeedDecidesTheOrder) {
  const auto order = [](uint64_t seed) {
    FakeClock clock;
    SimExecutor executor(&clock, seed);
    std::string stepped;
    std::vector<std::unique_ptr<Loop>> loops;
    for (const char name : {'a', 'b', 'c', 'd'}) {
      loops.push_back(executor.Start(std::string(1, name), [&stepped, name] {
        stepped += name;
        return StepResult::WaitForWake();
      }));
    }
    executor.RunUntilIdle();
    return stepped;
  };
  std::set<std::string> orders;
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    orders.insert(order(seed));
    ASSERT_EQ(order(seed), order(seed));
  }
  EXPECT_EQ(orders.size(), 24u);
}

TEST(SimExecutorTest, AStepMayStartAndStopOtherLoops) {
  FakeClock clock;
  SimExecutor executor(&clock);
  std::unique_ptr<Loop> child;
  int child_steps = 0;
  int parent_steps = 0;
  const auto parent = executor.Start("parent", [&] {
    if (++parent_steps == 1) {
      child = executor.Start("child", [&] {
        ++child_steps;
        return StepResult::WaitForWake();
      });
    } else {
      child.reset();
    }
    return StepResult::WaitForWake();
  });
  executor.RunUntilIdle();
  EXPECT_EQ(child_steps, 1);
  child->Wake();
  parent->Wake();
  executor.RunUntilIdle();
  EXPECT_EQ(child, nullptr);
  EXPECT_LE(child_steps, 2);
}

TEST(SimExecutorTest, AStoppedLoopStepsNoMore) {
  FakeClock clock;
  SimExecutor executor(&clock);
  int steps = 0;
  const auto loop = executor.Start("a", [&] {
    ++steps;
    return StepResult::Again();
  });
  executor.StepAll();
  loop->Stop();
  loop->Stop();
  loop->Wake();
  EXPECT_EQ(executor.StepAll(), 0);
  EXPECT_EQ(steps, 1);
}

TEST(SimExecutorTest, ALoopThatNeverRestsIsReported) {
  FakeClock clock;
  SimExecutor executor(&clock);
  const auto loop = executor.Start("a", [] { return StepResult::Again(); });
  EXPECT_FALSE(executor.RunUntilIdle(100));
}

TEST(SimWorkPoolTest, TasksRunAsStepsInOrder) {
  FakeClock clock;
  SimExecutor executor(&clock);
  std::vector<int> ran;
  SimWorkPool pool(&executor, 3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.Submit([&ran, i] { ran.push_back(i); }));
  EXPECT_FALSE(pool.Submit([] {}));
  EXPECT_TRUE(ran.empty());
  executor.RunUntilIdle();
  EXPECT_THAT(ran, ElementsAre(0, 1, 2));

  EXPECT_TRUE(pool.Submit([&ran] { ran.push_back(3); }));
  pool.Stop();
  EXPECT_THAT(ran, ElementsAre(0, 1, 2, 3));
  EXPECT_FALSE(pool.Submit([] {}));
}

TEST(FakeClockTest, SuspendStopsOnlyTheMonotonicClock) {
  FakeClock clock;
  const int64_t wall = clock.WallMicros();
  const int64_t monotonic = clock.MonotonicMicros();
  const int64_t boot = clock.BootMicros();
  clock.Advance(5);
  clock.Suspend(100);
  clock.JumpWall(-1000);
  EXPECT_EQ(clock.MonotonicMicros(), monotonic + 5);
  EXPECT_EQ(clock.BootMicros(), boot + 105);
  EXPECT_EQ(clock.WallMicros(), wall + 105 - 1000);
}

}  // namespace
}  // namespace towline::test
