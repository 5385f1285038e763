// Tests of Strand: one call at a time, no signal lost.

#include "server/strand.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "common/work_pool.h"
#include "gtest/gtest.h"
#include "tests/support/sim_executor.h"

namespace towline {
namespace {

TEST(StrandTest, SignalsDuringACallLeadToOneMoreCall) {
  test::FakeClock clock;
  test::SimExecutor executor(&clock);
  test::SimWorkPool pool(&executor);
  int calls = 0;
  std::shared_ptr<Strand> strand;
  strand = std::make_shared<Strand>(pool, [&] {
    if (++calls != 1) return;
    strand->Signal();
    strand->Signal();
    EXPECT_EQ(calls, 1) << "a signal ran the function inside itself";
  });
  strand->Signal();
  executor.RunUntilIdle();
  EXPECT_EQ(calls, 2);
  pool.Stop();
}

TEST(StrandTest, ACallOnTheCallersThreadIsMadeOnlyWhenNoneIsDue) {
  test::FakeClock clock;
  test::SimExecutor executor(&clock);
  test::SimWorkPool pool(&executor);
  int calls = 0;
  int here = 0;
  std::shared_ptr<Strand> strand;
  strand = std::make_shared<Strand>(pool, [&] {
    ++calls;
    EXPECT_FALSE(strand->TryRunHere([&] { ++here; })) << "inside a call";
  });
  strand->Signal();
  EXPECT_FALSE(strand->TryRunHere([&] { ++here; })) << "in front of a call that is due";
  executor.RunUntilIdle();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(here, 0);

  EXPECT_TRUE(strand->TryRunHere([&] { ++here; }));
  EXPECT_EQ(here, 1);
  executor.RunUntilIdle();
  EXPECT_EQ(calls, 1) << "nothing signalled";
  pool.Stop();
}

TEST(StrandTest, ASignalDuringACallOnTheCallersThreadIsAnsweredOnThePool) {
  test::FakeClock clock;
  test::SimExecutor executor(&clock);
  test::SimWorkPool pool(&executor);
  int calls = 0;
  const auto strand = std::make_shared<Strand>(pool, [&] { ++calls; });
  EXPECT_TRUE(strand->TryRunHere([&] {
    strand->Signal();
    strand->Signal();
    executor.RunUntilIdle();
    EXPECT_EQ(calls, 0) << "two calls at a time";
  }));
  executor.RunUntilIdle();
  EXPECT_EQ(calls, 1);
  strand->Signal();
  executor.RunUntilIdle();
  EXPECT_EQ(calls, 2);
  pool.Stop();
}

TEST(StrandTest, TheLastSignalIsSeenWhateverTheThreadsDo) {
  constexpr int kThreads = 4;
  constexpr int kSignals = 2000;
  const std::unique_ptr<WorkPool> pool = NewThreadWorkPool("test", 2, SIZE_MAX);
  std::atomic<int> produced{0};
  std::atomic<bool> running{false};
  Mutex mutex;
  CondVar changed;
  int seen = 0;
  const auto strand = std::make_shared<Strand>(*pool, [&] {
    EXPECT_FALSE(running.exchange(true)) << "two calls at a time";
    const int now = produced.load();
    {
      MutexLock lock(&mutex);
      seen = now;
      changed.NotifyAll();
    }
    running.store(false);
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kSignals; ++i) {
        produced.fetch_add(1);
        if (t == 0) {
          (void)strand->TryRunHere([&] {
            EXPECT_FALSE(running.exchange(true)) << "two calls at a time";
            running.store(false);
          });
        }
        strand->Signal();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  {
    MutexLock lock(&mutex);
    while (seen != kThreads * kSignals) ASSERT_TRUE(changed.WaitFor(&mutex, 30'000'000));
  }
  pool->Stop();
}

}  // namespace
}  // namespace towline
