#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/ctl/run_verb.h"

namespace towline::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::towline::testing::FakeServer;

class ForecastTest : public ::testing::Test {
 protected:
  ForecastTest() {
    v1::ForecastSlotsResponse& forecast = server_.state().forecast;
    forecast.set_append_bytes_per_second_1m(3 << 20);
    forecast.set_append_bytes_per_second_15m(1 << 20);
    forecast.set_measured_seconds(30);
    forecast.set_log_bytes(uint64_t{2} << 30);
    v1::DiskStatus* const disk = forecast.mutable_disk();
    disk->set_total_bytes(uint64_t{100} << 30);
    disk->set_available_bytes(uint64_t{75} << 30);
    disk->set_used_ratio(0.25);
    disk->set_guard_ratio(0.9);
    disk->set_growth_bytes_per_second_1m(-2048);
    disk->set_growth_bytes_per_second_15m(1024);
    disk->set_seconds_to_full(9000);
    v1::SlotForecast* const standing = forecast.add_slots();
    standing->set_name("standing");
    standing->set_kind(v1::SLOT_KIND_CONSUMER);
    standing->set_state(v1::SLOT_STATE_INACTIVE);
    standing->set_retained_bytes(1 << 20);
    standing->set_drain_bytes_per_second_1m(0);
    standing->set_drain_bytes_per_second_15m(512);
    standing->set_headroom_bytes(3 << 20);
    standing->set_seconds_to_invalidation(5400);
    standing->set_cause("retained_bytes");
    standing->set_retained_bytes_then(4 << 20);
    standing->set_survives(true);
    v1::SlotForecast* const fast = forecast.add_slots();
    fast->set_name("fast");
    fast->set_kind(v1::SLOT_KIND_REPLICA);
    fast->set_state(v1::SLOT_STATE_ACTIVE);
    fast->set_survives(true);
  }

  FakeServer server_;
  Towctl towctl_{server_.endpoint()};
};

TEST_F(ForecastTest, TheTableHasSizesDurationsAndNever) {
  const VerbResult result = towctl_({"slot", "forecast"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* text : {
           "log       2 GiB on disk, grows by 3 MiB/s (1 min), 1 MiB/s (15 min), measured for only 30.00 s\n",
           "disk      75 GiB of 100 GiB free, 25.0 % in use, grows by -2 KiB/s (1 min), 1 KiB/s (15 min), "
           "guard at 90 %: never, full: 2.5 h\n",
           "standing  consumer  inactive  1 MiB     0 B/s     512 B/s    3 MiB     90.0 min        retained_bytes  "
           "4 MiB          yes\n",
           "fast      replica   active    0 B       -         -          0 B       never           -               "
           "-              yes\n",
       }) {
    EXPECT_THAT(result.out, HasSubstr(text));
  }
  EXPECT_THAT(result.out, Not(HasSubstr("if ")));
  const v1::ForecastSlotsRequest& request = server_.state().forecasts.at(0);
  EXPECT_EQ(request.name(), "");
  EXPECT_FALSE(request.has_max_retained_bytes() || request.has_replica_off_seconds() || request.has_disk_bytes());
}

TEST_F(ForecastTest, JsonHasNumbersAndNull) {
  const Json json = towctl_({"slot", "forecast", "-o", "json"}).json();
  EXPECT_EQ(json["append_bytes_per_second_1m"], 3 << 20);
  EXPECT_EQ(json["slots"][0]["seconds_to_invalidation"], 5400);
  EXPECT_EQ(json["slots"][0]["cause"], "retained_bytes");
  EXPECT_TRUE(json["slots"][1]["seconds_to_invalidation"].is_null());
  EXPECT_TRUE(json["slots"][1]["drain_bytes_per_second_1m"].is_null());
  EXPECT_TRUE(json["disk"]["seconds_to_guard"].is_null());
}

TEST_F(ForecastTest, WhatIfsAreSentInBytesAndSeconds) {
  const VerbResult result =
      towctl_({"slot", "forecast", "standing", "--max-retained", "4GiB", "--replica-off", "90m", "--disk", "100GB"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("if        a slot may hold 4 GiB; each owner, one at a time, is away for 90.0 min; "
                                    "the disk has 93.1 GiB\n"));
  const v1::ForecastSlotsRequest& request = server_.state().forecasts.at(0);
  EXPECT_EQ(request.name(), "standing");
  EXPECT_EQ(request.max_retained_bytes(), uint64_t{4} << 30);
  EXPECT_EQ(request.replica_off_seconds(), 5400);
  EXPECT_EQ(request.disk_bytes(), 100'000'000'000u);
}

TEST_F(ForecastTest, ASlotThatDoesNotSurviveIsExitCodeThree) {
  server_.state().forecast.mutable_slots(0)->set_survives(false);
  const VerbResult result = towctl_({"slot", "forecast", "--replica-off", "6h"});
  EXPECT_EQ(result.code, 3);
  EXPECT_THAT(result.out, HasSubstr("NO\n"));
  EXPECT_THAT(result.err, HasSubstr("does not survive: standing (retained_bytes)"));
  const VerbResult json = towctl_({"slot", "forecast", "--replica-off", "6h", "-o", "json"});
  EXPECT_EQ(json.code, 3);
  EXPECT_EQ(json.json()["slots"][0]["survives"], false);
  EXPECT_EQ(json.error()["reason"], "slots_lost");
  EXPECT_EQ(towctl_({"slot", "forecast"}).code, 0);  // nothing was asked
}

TEST_F(ForecastTest, ArgumentsNeedUnitsAndNames) {
  EXPECT_EQ(towctl_({"slot", "forecast", "--max-retained", "4"}).code, 2);
  EXPECT_EQ(towctl_({"slot", "forecast", "--replica-off", "6"}).code, 2);
  EXPECT_EQ(towctl_({"slot", "forecast", "--disk", "big"}).code, 2);
  EXPECT_EQ(towctl_({"slot", "forecast", "No Name"}).code, 2);
  EXPECT_TRUE(server_.state().forecasts.empty());
}

TEST_F(ForecastTest, StatusShowsTheDisk) {
  *server_.state().status.mutable_disk() = server_.state().forecast.disk();
  EXPECT_THAT(towctl_({"status"}).out, HasSubstr("\ndisk      75 GiB of 100 GiB free"));
  EXPECT_EQ(towctl_({"status", "-o", "json"}).json()["disk"]["used_ratio"], 0.25);
}

}  // namespace
}  // namespace towline::ctl
