// Tests of smoothed rates. Expected values are worked out from the definition: a rate r that lasts for s seconds leaves
// r * (1 - exp(-s / window)) in the sum, and what was there before is multiplied by exp(-s / window).

#include "primary/rates.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace towline::test {
namespace {

constexpr int64_t kSecond = 1'000'000;

class RatesTest : public ::testing::Test {
 protected:
  // Time passes, in which `bytes` come; then a look.
  void Pass(int64_t micros, int64_t bytes) {
    clock_.Advance(micros);
    level_ += bytes;
    meter_.Observe(clock_.MonotonicMicros(), level_);
  }
  void ExpectRates(double one, double fifteen) {
    ASSERT_TRUE(meter_.rates().has_value());
    EXPECT_NEAR(meter_.rates()->per_second_1m, one, 0.01);
    EXPECT_NEAR(meter_.rates()->per_second_15m, fifteen, 0.01);
  }

  FakeClock clock_;
  RateMeter meter_;
  int64_t level_ = 1'000'000'000'000;  // what was there before the first look is no growth
};

TEST_F(RatesTest, OneLookIsNoRate) {
  EXPECT_FALSE(meter_.rates().has_value());
  Pass(0, 0);
  EXPECT_FALSE(meter_.rates().has_value());
  Pass(0, 5000);  // no time has passed
  EXPECT_FALSE(meter_.rates().has_value());
  EXPECT_EQ(meter_.measured_seconds(), 0);
}

TEST_F(RatesTest, AConstantRateIsItselfWhateverTheDistanceOfTheLooks) {
  Pass(0, 0);
  for (const int64_t micros : {kSecond / 10, 7 * kSecond, kSecond, 60 * kSecond, 3600 * kSecond, kSecond / 4}) {
    Pass(micros, micros / 1000);
    ExpectRates(1000, 1000);
  }
}

TEST_F(RatesTest, AStepShowsByTheTimeConstants) {
  Pass(0, 0);
  Pass(100 * 3600 * kSecond, 0);  // long enough that both windows are full of nothing
  ExpectRates(0, 0);
  Pass(60 * kSecond, 360'000);   // 6000 B/s for a minute
  ExpectRates(3792.72, 386.96);  // 6000 (1 - 1/e), 6000 (1 - exp(-1/15))
  Pass(60 * kSecond, 0);
  ExpectRates(1395.26, 362.00);  // divided by e, by exp(1/15)
}

TEST_F(RatesTest, ManyLooksSayWhatOneSays) {
  Pass(0, 0);
  Pass(100 * 3600 * kSecond, 0);
  for (int i = 0; i < 600; ++i) Pass(kSecond / 10, 600);
  ExpectRates(3792.72, 386.96);
}

TEST_F(RatesTest, AYoungMeterGivesTheMeanOfWhatItHasSeen) {
  Pass(0, 0);
  Pass(10 * kSecond, 6000);
  EXPECT_EQ(meter_.measured_seconds(), 10);
  ExpectRates(600, 600);  // and not 92 and 7, as if there had been nothing before
  Pass(10 * kSecond, 0);
  ExpectRates(275.06, 298.33);  // 600 / (1 + exp(10/60)), 600 / (1 + exp(10/900)): the newer half weighs a little more
}

TEST_F(RatesTest, WhatComesBetweenTwoLooksAtOneTimeCountsForTheNextInterval) {
  Pass(0, 0);
  Pass(kSecond, 1000);
  Pass(0, 500);
  ExpectRates(1000, 1000);
  Pass(kSecond, 500);
  ExpectRates(1000, 1000);
}

TEST_F(RatesTest, ALevelMayFall) {
  Pass(0, 0);
  Pass(10 * kSecond, -5000);
  ExpectRates(-500, -500);
}

// A log of records of 100 bytes.
class LogRatesTest : public ::testing::Test {
 protected:
  slots::Slot SlotAt(const std::string& name, Lsn confirmed_lsn, uint64_t generation = 7) {
    slots::Slot slot;
    slot.name = name;
    slot.generation = generation;
    slot.data_generation = data_generation_;
    slot.confirmed_lsn = confirmed_lsn;
    return slot;
  }
  // One second passes, `records` are appended; then a look.
  void Look(uint64_t records, const std::vector<slots::Slot>& slots, std::optional<uint64_t> disk_used = std::nullopt) {
    clock_.Advance(kSecond);
    end_ += records;
    LogRates::Look look;
    look.now_micros = clock_.MonotonicMicros();
    look.data_generation = data_generation_;
    look.appended_bytes = (end_ - opened_at_) * 100;
    look.disk_used_bytes = disk_used;
    look.bytes_behind = [this](Lsn lsn) { return (end_ - lsn) * 100 + jitter_; };
    rates_.Observe(look, slots);
  }
  double Drain(const slots::Slot& slot) {
    const std::optional<Rates> drain = rates_.drain(slot);
    return drain ? drain->per_second_1m : std::numeric_limits<double>::quiet_NaN();
  }

  FakeClock clock_;
  LogRates rates_;
  uint64_t data_generation_ = 1;
  Lsn end_ = 1000;
  Lsn opened_at_ = 1000;
  uint64_t jitter_ = 0;
};

TEST_F(LogRatesTest, LogAndSlotsAreMeasuredInBytesOfLog) {
  Look(0, {SlotAt("fast", 500), SlotAt("stands", 500)});
  EXPECT_FALSE(rates_.append().rates().has_value());
  EXPECT_FALSE(rates_.drain(SlotAt("fast", 500)).has_value());
  Look(10, {SlotAt("fast", 530), SlotAt("stands", 500)});
  EXPECT_NEAR(rates_.append().rates()->per_second_1m, 1000, 1e-6);
  EXPECT_NEAR(Drain(SlotAt("fast", 530)), 3000, 1e-6);
  EXPECT_EQ(Drain(SlotAt("stands", 500)), 0);
}

TEST_F(LogRatesTest, ASlotThatStandsStillNeverSeemsToMove) {
  for (int i = 0; i < 20; ++i) {
    jitter_ = i % 2 == 0 ? 0 : 65536;  // bytes_behind is exact to an index interval only
    Look(10, {SlotAt("s", 500)});
  }
  EXPECT_EQ(Drain(SlotAt("s", 500)), 0);
}

TEST_F(LogRatesTest, AnotherSlotOfTheNameBeginsAnew) {
  Look(0, {SlotAt("s", 500)});
  Look(0, {SlotAt("s", 600)});
  EXPECT_GT(Drain(SlotAt("s", 600)), 0);
  EXPECT_FALSE(rates_.drain(SlotAt("s", 600, 8)).has_value());
  // A move back is a new generation, and no drain.
  Look(0, {SlotAt("s", 100, 8)});
  EXPECT_FALSE(rates_.drain(SlotAt("s", 100, 8)).has_value());
  Look(0, {SlotAt("s", 110, 8)});
  EXPECT_NEAR(Drain(SlotAt("s", 110, 8)), 1000, 1e-6);
}

TEST_F(LogRatesTest, ADroppedOrInvalidatedSlotIsForgotten) {
  slots::Slot invalidated = SlotAt("invalidated", 500);
  Look(0, {SlotAt("dropped", 500), SlotAt("invalidated", 500)});
  Look(0, {SlotAt("dropped", 600), SlotAt("invalidated", 600)});
  ASSERT_GT(Drain(SlotAt("dropped", 600)), 0);
  invalidated.state = slots::SlotState::kInvalidated;
  Look(0, {invalidated});
  EXPECT_FALSE(rates_.drain(SlotAt("dropped", 600)).has_value());
  EXPECT_FALSE(rates_.drain(invalidated).has_value());
}

TEST_F(LogRatesTest, ASlotsGrowthIsThatOfItsOwnTime) {
  Look(0, {});
  Look(100'000, {});  // a burst before the slot was there
  Look(0, {SlotAt("s", end_)});
  EXPECT_FALSE(rates_.growth(SlotAt("s", end_)).has_value());  // one look
  Look(0, {SlotAt("s", end_)});
  EXPECT_GT(rates_.append().rates()->per_second_1m, 1000);
  EXPECT_EQ(rates_.growth(SlotAt("s", end_))->per_second_1m, 0);
  const Lsn stands = end_;
  Look(500, {SlotAt("s", stands)});
  EXPECT_GT(rates_.growth(SlotAt("s", stands))->per_second_15m, 0);
}

TEST_F(LogRatesTest, AnotherLogBeginsAnewAndTheDiskGoesOn) {
  Look(0, {SlotAt("s", 500)}, 5000);
  Look(10, {SlotAt("s", 600)}, 6000);
  data_generation_ = 2;
  opened_at_ = end_;
  Look(0, {SlotAt("s", 600)}, 7000);
  EXPECT_FALSE(rates_.append().rates().has_value());
  EXPECT_FALSE(rates_.drain(SlotAt("s", 600)).has_value());
  EXPECT_NEAR(rates_.disk_growth().rates()->per_second_15m, 1000, 1e-6);
}

TEST_F(LogRatesTest, ADiskThatIsNotKnownHasNoRate) {
  Look(0, {}, 5000);
  Look(0, {}, 6000);
  Look(0, {});
  EXPECT_FALSE(rates_.disk_growth().rates().has_value());
}

}  // namespace
}  // namespace towline::test
