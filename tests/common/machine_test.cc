// Clock, random numbers, checks and the silent logger of the machine.

#include <algorithm>
#include <set>

#include "common/check.h"
#include "common/clock.h"
#include "common/logger.h"
#include "common/rng.h"
#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"

namespace towline {
namespace {

TEST(ClockTest, MonotonicAndBootTimeNeverFall) {
  Clock& clock = *SystemClock();
  int64_t monotonic = clock.MonotonicMicros();
  int64_t boot = clock.BootMicros();
  for (int i = 0; i < 1000; ++i) {
    const int64_t next_monotonic = clock.MonotonicMicros();
    const int64_t next_boot = clock.BootMicros();
    ASSERT_GE(next_monotonic, monotonic);
    ASSERT_GE(next_boot, boot);
    monotonic = next_monotonic;
    boot = next_boot;
  }
}

TEST(ClockTest, WallTimeIsUnixTimeInMicroseconds) {
  EXPECT_GT(SystemClock()->WallMicros(), int64_t{1600000000} * 1000000);
  EXPECT_LT(SystemClock()->WallMicros(), int64_t{7000000000} * 1000000);
}

TEST(RngTest, KernelNumbersDiffer) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 100; ++i) seen.insert(SystemRng()->Next());
  EXPECT_EQ(seen.size(), 100u);
}

class FixedRng : public Rng {
 public:
  uint64_t Next() override { return next_++; }

 private:
  uint64_t next_ = 0;
};

TEST(RngTest, IdsAreNeverZero) {
  FixedRng rng;
  EXPECT_EQ(NewId(rng), 1u);
}

TEST(RngTest, ClusterIdsAreTwentyFourLowerCaseHexDigits) {
  FixedRng zeros;
  EXPECT_EQ(NewClusterId(zeros), "000000000000000000000001");
  test::SeededRng rng(1);
  for (int i = 0; i < 100; ++i) {
    const ClusterId id = NewClusterId(rng);
    EXPECT_EQ(id.size(), kClusterIdSize);
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), ClusterId::npos);
  }
}

TEST(CheckDeathTest, FailedCheckEndsTheProcessAndSaysWhere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TOWLINE_CHECK(1 + 1 == 2);
  EXPECT_DEATH(TOWLINE_CHECK(1 + 1 == 3), "machine_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3");
}

TEST(LoggerTest, FieldsTakeNumbersTextAndTruth) {
  EXPECT_EQ(LogField("lsn", 7).value, "7");
  EXPECT_EQ(LogField("node", "p1").value, "p1");
  EXPECT_EQ(LogField("exact", true).value, "true");
  EXPECT_EQ(LogField("rate", 1.5).value, "1.5");
  NullLogger()->Log(LogLevel::kInfo, "event", {{"lsn", 7}, {"exact", false}});
}

}  // namespace
}  // namespace towline
