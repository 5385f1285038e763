// Tests of the forecast. All expected values are worked out by hand from the limits and rates beside them.

#include "primary/slot_forecast.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline::test {
namespace {

using ::testing::Eq;
using ::testing::Optional;

constexpr int64_t kSecond = 1'000'000;

ForecastSlot Consumer(const std::string& name, uint64_t retained_bytes) {
  ForecastSlot slot;
  slot.name = name;
  slot.kind = slots::SlotKind::kConsumer;
  slot.state = slots::SlotState::kActive;
  slot.retained_bytes = retained_bytes;
  slot.has_session = true;
  return slot;
}

class SlotForecastTest : public ::testing::Test {
 protected:
  // A log of 5000 bytes that grows by 10 B/s; a limit of 10000 bytes; no other limits, and no known disk.
  SlotForecastTest() {
    input_.append = Rates{10, 10};
    input_.log_bytes = 5000;
    input_.limits.max_retained_bytes = 10'000;
    input_.limits.consumer_idle_micros = 0;
  }

  // 100000 bytes, of which 80000 are in use; guard at 0.9.
  void AddDisk(Rates growth) {
    input_.disk = SpaceInfo{100'000, 20'000};
    input_.disk_growth = growth;
    input_.limits.disk_guard_ratio = 0.9;
  }
  SlotForecast Only(const ForecastSlot& slot, const ForecastWhatIf& what_if = {}) {
    input_.slots = {slot};
    return MakeForecast(input_, what_if).slots.at(0);
  }

  ForecastInput input_;
};

void ExpectLoss(const SlotForecast& forecast, double seconds, const std::string& cause, uint64_t retained_then) {
  ASSERT_TRUE(forecast.seconds_to_invalidation.has_value());
  EXPECT_NEAR(*forecast.seconds_to_invalidation, seconds, 1e-6);
  EXPECT_EQ(forecast.cause, cause);
  EXPECT_THAT(forecast.retained_bytes_then, Optional(Eq(retained_then)));
}

void ExpectNever(const SlotForecast& forecast) {
  EXPECT_FALSE(forecast.seconds_to_invalidation.has_value()) << *forecast.seconds_to_invalidation;
  EXPECT_EQ(forecast.cause, "");
  EXPECT_FALSE(forecast.retained_bytes_then.has_value());
  EXPECT_TRUE(forecast.survives);
}

TEST_F(SlotForecastTest, WhoHasASessionIsJudgedByItsOwnGrowth) {
  // It came behind a burst that the rate of the log still shows.
  ForecastSlot slot;
  slot.name = "s";
  slot.has_session = true;
  slot.drain = Rates{0, 0};
  slot.growth = Rates{0, 0};
  ExpectNever(Only(slot));
  slot.growth = Rates{4, 5};
  ExpectLoss(Only(slot), 2000, "retained_bytes", 10'000);
  // Once it is away, all that is written counts.
  EXPECT_FALSE(Only(slot, {.replica_off_seconds = 1001}).survives);
  EXPECT_TRUE(Only(slot, {.replica_off_seconds = 999}).survives);
}

TEST_F(SlotForecastTest, AStandingSlotReachesItsLimitAtTheRateOfTheLog) {
  ForecastSlot slot = Consumer("s", 4000);
  slot.drain = Rates{0, 0};
  const SlotForecast forecast = Only(slot);
  EXPECT_EQ(forecast.headroom_bytes, 6000u);
  EXPECT_THAT(forecast.headroom_seconds, Optional(600));
  EXPECT_EQ(forecast.growth_per_second, 10);
  ExpectLoss(forecast, 600, "retained_bytes", 10'000);
  EXPECT_TRUE(forecast.survives);  // not at once
}

TEST_F(SlotForecastTest, ASlotThatDrainsAsFastAsTheLogGrowsHasNothingToFear) {
  ForecastSlot slot = Consumer("s", 4000);
  slot.drain = Rates{10, 10};
  ExpectNever(Only(slot));
  slot.drain = Rates{12, 15};
  const SlotForecast forecast = Only(slot);
  ExpectNever(forecast);
  EXPECT_EQ(forecast.growth_per_second, -2);
  EXPECT_FALSE(forecast.headroom_seconds.has_value());
}

TEST_F(SlotForecastTest, TheWindowWithTheLargerNetGrowthCounts) {
  ForecastSlot slot = Consumer("s", 4000);
  slot.drain = Rates{10, 4};  // nothing over a minute, 6 B/s over fifteen
  ExpectLoss(Only(slot), 1000, "retained_bytes", 10'000);
  input_.append = Rates{30, 10};  // 20 B/s over a minute, 6 B/s over fifteen
  ExpectLoss(Only(slot), 300, "retained_bytes", 10'000);
}

TEST_F(SlotForecastTest, WithoutRatesNothingIsSaidOfBytes) {
  input_.append = Rates{0, 0};
  ExpectNever(Only(Consumer("s", 4000)));
  input_.append = Rates{0.9, 0.9};  // less than a byte per second is nothing
  ExpectNever(Only(Consumer("s", 4000)));
  input_.append = std::nullopt;  // a single look
  ExpectNever(Only(Consumer("s", 4000)));
  // What is over its limit already is so without any rate.
  ExpectLoss(Only(Consumer("s", 10'001)), 0, "retained_bytes", 10'001);
}

TEST_F(SlotForecastTest, ADrainThatIsNotMeasuredIsNone) {
  ExpectLoss(Only(Consumer("s", 4000)), 600, "retained_bytes", 10'000);
}

TEST_F(SlotForecastTest, TheLimitItselfIsNotOverIt) {
  input_.append = Rates{0, 0};
  ExpectNever(Only(Consumer("s", 10'000)));
  const SlotForecast over = Only(Consumer("s", 10'001));
  ExpectLoss(over, 0, "retained_bytes", 10'001);
  EXPECT_EQ(over.headroom_bytes, 0u);
  EXPECT_FALSE(over.survives);
}

TEST_F(SlotForecastTest, IdleTimeCountsWithoutASessionAndByKind) {
  input_.limits.consumer_idle_micros = 100 * kSecond;
  input_.limits.replica_idle_micros = 300 * kSecond;
  ForecastSlot slot = Consumer("s", 4000);
  ExpectLoss(Only(slot), 600, "retained_bytes", 10'000);
  slot.has_session = false;
  slot.idle_seconds = 30;
  ExpectLoss(Only(slot), 70, "idle_timeout", 4700);
  slot.kind = slots::SlotKind::kReplica;
  ExpectLoss(Only(slot), 270, "idle_timeout", 6700);
  slot.idle_seconds = 301;
  EXPECT_FALSE(Only(slot).survives);
  slot.is_copy = true;  // its owner is connected somewhere else
  ExpectLoss(Only(slot), 600, "retained_bytes", 10'000);
  slot.is_copy = false;
  input_.limits.replica_idle_micros = 0;
  ExpectLoss(Only(slot), 600, "retained_bytes", 10'000);
}

TEST_F(SlotForecastTest, TheDiskGuardIsReachedByTheGrowthOfTheDisk) {
  AddDisk({100, 50});  // 10000 bytes to the guard: 100 s
  ForecastSlot slot = Consumer("s", 4000);
  ExpectLoss(Only(slot), 100, "disk_pressure", 5000);
  slot.drain = Rates{20, 20};  // it shrinks by 10 B/s: 3000 bytes then
  ExpectLoss(Only(slot), 100, "disk_pressure", 3000);
  input_.kept_log_bytes = 3000;  // which would stay anyway
  ExpectNever(Only(slot));
}

TEST_F(SlotForecastTest, TheDiskGuardIsReachedByTheLogThatTheSlotHoldsBack) {
  AddDisk({0, 0});
  input_.limits.max_retained_bytes = 100'000;
  // 10000 bytes to the guard, and 1000 more of log that is there and not its own.
  ExpectLoss(Only(Consumer("s", 4000)), 1100, "disk_pressure", 15'000);
  input_.disk_growth = std::nullopt;
  ExpectLoss(Only(Consumer("s", 4000)), 1100, "disk_pressure", 15'000);
}

TEST_F(SlotForecastTest, BeyondTheGuardASlotIsSparedUntilItHoldsMoreThanWhatStaysAnyway) {
  AddDisk({0, 0});
  input_.disk->available_bytes = 5000;
  input_.kept_log_bytes = 4000;
  ExpectLoss(Only(Consumer("s", 4001)), 0, "disk_pressure", 4001);
  ExpectLoss(Only(Consumer("s", 3000)), 100, "disk_pressure", 4000);
}

TEST_F(SlotForecastTest, OfSeveralLimitsTheFirstInTimeIsTheCause) {
  AddDisk({100, 100});  // 100 s
  input_.limits.consumer_idle_micros = 90 * kSecond;
  ForecastSlot slot = Consumer("s", 9200);  // 80 s
  slot.has_session = false;
  ExpectLoss(Only(slot), 80, "retained_bytes", 10'000);
  slot.idle_seconds = 20;  // 70 s
  ExpectLoss(Only(slot), 70, "idle_timeout", 9900);
  input_.disk->available_bytes = 16'000;  // 60 s
  ExpectLoss(Only(slot), 60, "disk_pressure", 9800);
  // At one time, a slot's own limits before the disk, and bytes before time.
  slot.idle_seconds = 30;
  ExpectLoss(Only(slot), 60, "idle_timeout", 9800);
  slot.retained_bytes = 9400;
  ExpectLoss(Only(slot), 60, "retained_bytes", 10'000);
}

TEST_F(SlotForecastTest, ALostSlotStaysLost) {
  ForecastSlot slot = Consumer("s", 0);
  slot.state = slots::SlotState::kInvalidated;
  slot.lost_cause = "idle_timeout";
  const SlotForecast forecast = Only(slot, {.max_retained_bytes = 1 << 20});
  EXPECT_THAT(forecast.seconds_to_invalidation, Optional(0));
  EXPECT_EQ(forecast.cause, "idle_timeout");
  EXPECT_EQ(forecast.headroom_bytes, 0u);
  EXPECT_FALSE(forecast.survives);
}

TEST_F(SlotForecastTest, WhatIfTheLimitWereAnother) {
  const SlotForecast less = Only(Consumer("s", 4000), {.max_retained_bytes = 3999});
  ExpectLoss(less, 0, "retained_bytes", 4000);
  EXPECT_FALSE(less.survives);
  const SlotForecast more = Only(Consumer("s", 4000), {.max_retained_bytes = 50'000});
  ExpectLoss(more, 4600, "retained_bytes", 50'000);
  EXPECT_TRUE(more.survives);
  EXPECT_EQ(MakeForecast(input_, {.max_retained_bytes = 77}).limits.max_retained_bytes, 77u);
}

TEST_F(SlotForecastTest, WhatIfItsOwnerWereAway) {
  ForecastSlot slot = Consumer("s", 4000);
  slot.drain = Rates{50, 50};
  ExpectNever(Only(slot));
  // It stands still then: 600 s to the limit.
  EXPECT_TRUE(Only(slot, {.replica_off_seconds = 600}).survives);
  const SlotForecast lost = Only(slot, {.replica_off_seconds = 601});
  ExpectLoss(lost, 600, "retained_bytes", 10'000);
  EXPECT_EQ(lost.growth_per_second, 10);
  EXPECT_FALSE(lost.survives);
  EXPECT_TRUE(Only(slot, {.max_retained_bytes = 20'000, .replica_off_seconds = 601}).survives);
  // The faster window counts.
  input_.append = Rates{10, 20};
  EXPECT_FALSE(Only(slot, {.replica_off_seconds = 301}).survives);
  input_.append = Rates{0, 0};
  EXPECT_TRUE(Only(slot, {.replica_off_seconds = 1e9}).survives);
}

TEST_F(SlotForecastTest, WhatIfItsOwnerWereAwayForLongerThanItsIdleLimit) {
  input_.limits.consumer_idle_micros = 100 * kSecond;
  ForecastSlot slot = Consumer("s", 4000);
  slot.drain = Rates{10, 10};
  ExpectNever(Only(slot));
  ExpectLoss(Only(slot, {.replica_off_seconds = 200}), 100, "idle_timeout", 5000);  // from when it leaves
  EXPECT_TRUE(Only(slot, {.replica_off_seconds = 100}).survives);
  slot.has_session = false;
  slot.idle_seconds = 40;
  EXPECT_FALSE(Only(slot, {.replica_off_seconds = 61}).survives);
}

TEST_F(SlotForecastTest, WhatIfItsOwnerWereAwayAndTheLogFilledTheDisk) {
  AddDisk({0, 0});
  input_.limits.max_retained_bytes = 100'000;
  ForecastSlot slot = Consumer("s", 0);
  slot.drain = Rates{10, 10};
  ExpectNever(Only(slot));
  // 10000 bytes to the guard and 5000 of log that is there: 1500 s.
  ExpectLoss(Only(slot, {.replica_off_seconds = 1501}), 1500, "disk_pressure", 15'000);
  EXPECT_FALSE(Only(slot, {.replica_off_seconds = 1501}).survives);
  EXPECT_TRUE(Only(slot, {.replica_off_seconds = 1500}).survives);
}

TEST_F(SlotForecastTest, WhatIfTheDiskWereAnother) {
  AddDisk({100, 100});
  input_.slots = {Consumer("s", 4000)};
  Forecast forecast = MakeForecast(input_, {.disk_bytes = 200'000});
  EXPECT_EQ(forecast.disk->space.total_bytes, 200'000u);
  EXPECT_EQ(forecast.disk->space.available_bytes, 120'000u);  // 80000 are in use
  EXPECT_THAT(forecast.disk->seconds_to_guard, Optional(::testing::DoubleNear(1000, 1e-6)));
  EXPECT_THAT(forecast.disk->seconds_to_full, Optional(1200));
  ExpectLoss(forecast.slots[0], 600, "retained_bytes", 10'000);
  forecast = MakeForecast(input_, {.disk_bytes = 80'000});
  EXPECT_THAT(forecast.disk->seconds_to_guard, Optional(0));
  EXPECT_THAT(forecast.disk->seconds_to_full, Optional(0));
  EXPECT_FALSE(forecast.slots[0].survives);
  EXPECT_EQ(forecast.slots[0].cause, "disk_pressure");
  EXPECT_EQ(MakeForecast(input_, {.disk_bytes = 1}).disk->space.available_bytes, 0u);
}

TEST_F(SlotForecastTest, TheDiskIsFullAtTheLargerOfItsRates) {
  AddDisk({40, 100});
  Forecast forecast = MakeForecast(input_);
  EXPECT_THAT(forecast.disk->seconds_to_guard, Optional(::testing::DoubleNear(100, 1e-6)));
  EXPECT_THAT(forecast.disk->seconds_to_full, Optional(200));
  input_.limits.disk_guard_ratio = 0;
  EXPECT_FALSE(MakeForecast(input_).disk->seconds_to_guard.has_value());
  input_.disk_growth = Rates{-5, 0};
  EXPECT_FALSE(MakeForecast(input_).disk->seconds_to_full.has_value());
  input_.disk_growth = std::nullopt;
  EXPECT_FALSE(MakeForecast(input_).disk->seconds_to_full.has_value());
  input_.disk = std::nullopt;
  EXPECT_FALSE(MakeForecast(input_, {.disk_bytes = 5}).disk.has_value());
}

}  // namespace
}  // namespace towline::test
