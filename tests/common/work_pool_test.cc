#include "common/work_pool.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "gtest/gtest.h"
#include "tests/support/counter.h"

namespace towline {
namespace {

using test::Counter;

TEST(WorkPoolTest, OneThreadRunsTasksInTheOrderOfArrival) {
  std::vector<int> order;
  {
    const auto pool = NewThreadWorkPool("order", 1, 1000);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool->Submit([&order, i] { order.push_back(i); }));
    pool->Stop();
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(WorkPoolTest, RefusesWhatDoesNotFitTheQueue) {
  Counter started;
  Counter go_on;
  Counter ran;
  const auto pool = NewThreadWorkPool("bound", 2, 3);
  const auto block = [&] {
    started.Add();
    EXPECT_TRUE(go_on.WaitFor(1));
  };
  // Both threads are busy, so that what follows waits in the queue.
  ASSERT_TRUE(pool->Submit(block));
  ASSERT_TRUE(pool->Submit(block));
  ASSERT_TRUE(started.WaitFor(2));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool->Submit([&] { ran.Add(); }));
  EXPECT_FALSE(pool->Submit([&] { ran.Add(100); }));

  go_on.Add();
  ASSERT_TRUE(ran.WaitFor(3));
  EXPECT_TRUE(pool->Submit([&] { ran.Add(); }));
  EXPECT_TRUE(ran.WaitFor(4));
  pool->Stop();
  EXPECT_EQ(ran.value(), 4);
}

TEST(WorkPoolTest, ThreadsWorkAtTheSameTime) {
  Counter inside;
  const auto pool = NewThreadWorkPool("many", 3, 10);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(pool->Submit([&] {
      inside.Add();
      EXPECT_TRUE(inside.WaitFor(3));  // nobody leaves before all are in
    }));
  }
  EXPECT_TRUE(inside.WaitFor(3));
}

TEST(WorkPoolTest, StopRunsWhatIsQueuedAndRefusesMore) {
  Counter go_on;
  Counter ran;
  const auto pool = NewThreadWorkPool("stop", 1, 100);
  ASSERT_TRUE(pool->Submit([&] { EXPECT_TRUE(go_on.WaitFor(1)); }));
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(pool->Submit([&] { ran.Add(); }));
  std::thread other([&] { pool->Stop(); });
  go_on.Add();
  pool->Stop();
  other.join();
  EXPECT_EQ(ran.value(), 50);
  EXPECT_FALSE(pool->Submit([&] { ran.Add(); }));
  pool->Stop();
  EXPECT_EQ(ran.value(), 50);
}

TEST(WorkPoolTest, WhatATaskHoldsIsReleasedWhenItIsDone) {
  Counter released;
  const auto pool = NewThreadWorkPool("hold", 1, 10);
  std::shared_ptr<int> held(new int(1), [&released](const int* p) {
    delete p;
    released.Add();
  });
  ASSERT_TRUE(pool->Submit([held = std::move(held)] { ASSERT_EQ(*held, 1); }));
  EXPECT_TRUE(released.WaitFor(1));  // although no other task follows
}

TEST(WorkPoolTest, ManySubmittersLoseNothing) {
  Counter ran;
  std::atomic<int64_t> accepted{0};
  const auto pool = NewThreadWorkPool("load", 3, 64);
  std::vector<std::thread> submitters;
  for (int i = 0; i < 4; ++i) {
    submitters.emplace_back([&] {
      for (int n = 0; n < 3000; ++n) {
        if (pool->Submit([&] { ran.Add(); })) ++accepted;
      }
    });
  }
  for (std::thread& submitter : submitters) submitter.join();
  pool->Stop();
  EXPECT_EQ(ran.value(), accepted);
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace towline
