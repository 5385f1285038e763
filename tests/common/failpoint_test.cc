#include "common/failpoint.h"

#include <cstdlib>

#include "gtest/gtest.h"

namespace towline {
namespace {

TEST(FailpointTest, IsOnWithinItsScopeOnly) {
  EXPECT_FALSE(Failpoint("skip_sync"));
  {
    FailpointScope scope("skip_sync");
    EXPECT_TRUE(Failpoint("skip_sync"));
    EXPECT_FALSE(Failpoint("skip"));
    EXPECT_FALSE(Failpoint("other"));
  }
  EXPECT_FALSE(Failpoint("skip_sync"));
}

TEST(FailpointTest, ScopesOfOneNameNest) {
  FailpointScope outer("ack_early");
  { FailpointScope inner("ack_early"); }
  EXPECT_TRUE(Failpoint("ack_early"));
}

// The environment is read once, so a fresh process has to look.
TEST(FailpointDeathTest, EnvironmentSwitchesPointsOn) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("TOWLINE_FAILPOINTS", "first, second", 1);
        const bool as_told = Failpoint("first") && Failpoint("second") && !Failpoint("third");
        std::_Exit(as_told ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace towline
