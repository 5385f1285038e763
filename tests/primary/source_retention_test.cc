// Tests of what holds the log, and of when it is removed.

#include <string>

#include "common/error.h"
#include "common/file_system.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

class SourceRetentionTest : public SourceTest {
 protected:
  // About two segments of log.
  void WriteTwoSegments() { Write(32, 4000); }

  // Everything that may go is gone.
  void Retain() {
    FlushStore();
    Pass(2 * options_.slots_persist_micros);
  }

  std::unique_ptr<Owner> AttachAt(const std::string& slot, Lsn lsn) {
    v1::PullStart start = ReplicaStart(slot, lsn);
    start.set_process_instance(30 + slot.back());
    return Attach(start);
  }
};

TEST_F(SourceRetentionTest, WithoutSlotsTheLogGoesDownToWhatTheStoreLacks) {
  WriteTwoSegments();
  Pass(2 * options_.slots_persist_micros);
  EXPECT_EQ(FirstRetained(), 1u);  // the store alone would reopen empty
  Retain();
  EXPECT_GT(FirstRetained(), 1u);
  EXPECT_EQ(slots_->first_retained(1), FirstRetained());
  ASSERT_EQ(logger_.Events("wal_pruned").size(), 1u);
  const auto fields = logger_.Events("wal_pruned")[0].fields;
  EXPECT_EQ(fields.at("old_first_lsn"), "1");
  EXPECT_EQ(fields.at("first_lsn"), std::to_string(FirstRetained()));
  EXPECT_EQ(fields.at("persisted_lsn"), "33");
}

TEST_F(SourceRetentionTest, KeepBytesStay) {
  options_.wal_keep_bytes = 1 << 20;
  OpenNode();
  WriteTwoSegments();
  Retain();
  EXPECT_EQ(FirstRetained(), 1u);
}

TEST_F(SourceRetentionTest, ASlotHoldsTheLogFromItsSavedPosition) {
  AttachAt("r1", 1)->Close();
  WriteTwoSegments();
  Retain();
  EXPECT_EQ(FirstRetained(), 1u);

  auto owner = AttachAt("r1", 1);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(33), IsOk());
  owner->Close();
  // The ack is in memory only, and the next save fails: what is saved still needs LSN 2.
  fs_.FailNext(SimCall::kWrite, absl::DataLossError("injected"), "slots");
  clock_.Advance(options_.slots_persist_micros);
  EXPECT_THAT(source_->Tick(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(FirstRetained(), 1u);
  Retain();
  EXPECT_GT(FirstRetained(), 1u);
}

TEST_F(SourceRetentionTest, ASessionPinsWhatItHasNotSent) {
  limits_.max_retained_bytes = 1 << 30;
  OpenNode();
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_credit_bytes(1);
  auto owner = Attach(start);
  WriteTwoSegments();
  ASSERT_THAT(slots_->Drop("r1", true), IsOk());  // the slot is gone, the pin is not yet
  FlushStore();
  ASSERT_THAT(host_.live->spool().Prune(34, 0, [](Lsn) { return absl::OkStatus(); }), IsOk());
  EXPECT_EQ(FirstRetained(), 1u);
  Pass(options_.slots_persist_micros);
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "slot_dropped");
  EXPECT_GT(FirstRetained(), 1u);
}

TEST_F(SourceRetentionTest, ASlowReceiverIsServedFromDiskWhileItsSlotHolds) {
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_credit_bytes(1);
  auto owner = Attach(start);
  for (int i = 0; i < 10; ++i) {
    WriteTwoSegments();
    Retain();
    ASSERT_THAT(owner->AckAll(1), IsOk());
  }
  ASSERT_THAT(owner->Grant(uint64_t{1} << 40), IsOk());
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(2, 321));
}

TEST_F(SourceRetentionTest, AnInvalidatedSlotPinsNothingAndItsSessionEndsAtTheGap) {
  limits_.max_retained_bytes = 100'000;
  spool_options_.tail_cache_bytes = 0;  // which could serve records that are gone from the disk
  OpenNode();
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_credit_bytes(1);
  auto owner = Attach(start);
  owner->Receive();
  WriteTwoSegments();
  WriteTwoSegments();
  Retain();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);
  EXPECT_GT(FirstRetained(), 20u);
  ASSERT_THAT(owner->Grant(uint64_t{1} << 40), IsOk());
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "wal_removed");
  EXPECT_EQ(Ask(start).reason(), "retained_bytes");
}

// Between two retentions a fast writer could fill the disk with what one slot holds.
TEST_F(SourceRetentionTest, ALogThatGrowsFastIsLookedAtBeforeTheNextRetention) {
  limits_.max_retained_bytes = 100'000;
  limits_.disk_guard_ratio = 0.5;
  options_.limits_check_bytes = 50'000;
  uint64_t available_bytes = 20'000'000;
  options_.disk_space = [&available_bytes] { return SpaceInfo{20'000'000, available_bytes}; };
  OpenNode();
  AttachAt("r1", 1)->Close();
  Retain();
  const uint64_t saves = slots_->saves_total();
  available_bytes = 2'000'000;  // the guard has its own pace: see EnforceLimits
  Write(16, 4000);
  Tick();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);
  EXPECT_EQ(slots_->saves_total(), saves) << "a look costs no save";

  Write(10, 4000);  // over the limit, but not 50,000 bytes more than at the look before
  Tick();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);
  Write(10, 4000);
  FlushStore();
  Tick();
  ASSERT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);
  EXPECT_EQ(SlotOf("r1").invalidation->cause, "retained_bytes");
  EXPECT_GT(FirstRetained(), 1u);
  EXPECT_EQ(source_->Counters().invalidations_by_cause.at("retained_bytes"), 1u);
}

// A limit below keep_bytes must not make a connected owner connect again and again.
TEST_F(SourceRetentionTest, ASessionOverItsLimitGoesOnWhileTheLogIsThereAndHoldsItAgainLater) {
  limits_.max_retained_bytes = 100'000;
  options_.wal_keep_bytes = 1 << 20;
  OpenNode();
  auto owner = AttachAt("r1", 1);
  WriteTwoSegments();
  Retain();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);
  EXPECT_EQ(slots_->Floor(1), std::numeric_limits<Lsn>::max());
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 33u);
  ASSERT_THAT(owner->AckAll(5), IsOk());
  Retain();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);
  ASSERT_THAT(owner->AckAll(30), IsOk());
  Retain();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  EXPECT_EQ(slots_->Floor(1), 31u);
  EXPECT_FALSE(owner->ended);
  EXPECT_EQ(source_->Counters().invalidations_by_cause.at("retained_bytes"), 1u);
  EXPECT_EQ(logger_.Events("slot_revived").size(), 1u);
}

TEST_F(SourceRetentionTest, AnUnknownTableRemovesNothing) {
  WriteTwoSegments();
  AttachAt("r1", 33)->Close();
  CloseNode();
  fs_.SetContents("slots.a", "rubbish");
  fs_.SetContents("slots.b", "rubbish");
  OpenNode();
  ASSERT_TRUE(slots_->unknown());
  Retain();
  EXPECT_EQ(FirstRetained(), 1u);
  AttachAt("r1", 33)->Close();  // an owner that is back does not make the others known
  OpenNode();
  Retain();
  EXPECT_EQ(FirstRetained(), 1u);
  ASSERT_THAT(slots_->AcceptLoss(), IsOk());
  Retain();
  EXPECT_GT(FirstRetained(), 1u);
}

TEST_F(SourceRetentionTest, ALogThatCannotRecordItsFirstLsnIsNotPruned) {
  WriteTwoSegments();
  FlushStore();
  fs_.FailNext(SimCall::kSync, absl::DataLossError("injected"), "slots");
  EXPECT_THAT(source_->Tick(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(FirstRetained(), 1u);
}

TEST_F(SourceRetentionTest, AFullDiskIsWaitedFor) {
  WriteTwoSegments();
  FlushStore();
  fs_.FailNext(SimCall::kCreate, FileError(28, "create", "slots.a"), "slots");
  Tick();
  EXPECT_EQ(FirstRetained(), 1u);
  EXPECT_EQ(logger_.Events("retention_disk_full").size(), 1u);
  Retain();
  EXPECT_GT(FirstRetained(), 1u);
}

TEST_F(SourceRetentionTest, StatusTellsHealthAndHeadroom) {
  limits_.max_retained_bytes = 400'000;
  OpenNode();
  AttachAt("r1", 1)->Close();
  AttachAt("r2", 1)->Close();
  Tick();
  SlotStatus status = source_->Slots()[0];
  EXPECT_EQ(status.health, "reserved");
  EXPECT_EQ(status.retained_bytes, 0u);
  EXPECT_EQ(status.headroom_bytes, 400'000u);
  EXPECT_FALSE(status.headroom_seconds.has_value());  // nobody writes

  Write(80, 4000);
  Pass(options_.slots_persist_micros);
  status = source_->Slots()[0];
  EXPECT_EQ(status.health, "at_risk");
  EXPECT_NEAR(static_cast<double>(status.retained_bytes), 80 * 4080, 2000);
  EXPECT_EQ(status.retained_bytes + status.headroom_bytes, 400'000u);
  // Both windows are as young as the two looks: all that was written, over that time.
  const double rate =
      static_cast<double>(status.retained_bytes) / 1e-6 / static_cast<double>(options_.slots_persist_micros);
  ASSERT_TRUE(status.headroom_seconds.has_value());
  EXPECT_NEAR(*status.headroom_seconds, static_cast<double>(status.headroom_bytes) / rate,
              0.1 * *status.headroom_seconds);

  Write(30, 4000);
  Retain();
  status = source_->Slots()[0];
  EXPECT_EQ(status.health, "lost");
  EXPECT_EQ(status.retained_bytes, 0u);
  EXPECT_EQ(status.headroom_bytes, 0u);
}

TEST_F(SourceRetentionTest, ForecastsTellStandingAndFollowingSlotsApart) {
  limits_.max_retained_bytes = 400'000;
  limits_.replica_idle_micros = int64_t{24} * 3600 * 1'000'000;
  uint64_t available_bytes = 10'000'000;
  options_.disk_space = [&available_bytes] { return SpaceInfo{20'000'000, available_bytes}; };
  OpenNode();
  AttachAt("away", 1)->Close();
  auto owner = AttachAt("here", 1);
  Tick();
  Forecast forecast = source_->ForecastSlots({});
  EXPECT_FALSE(forecast.append.has_value());  // one look
  EXPECT_EQ(forecast.slots[0].cause, "idle_timeout");

  for (int i = 0; i < 20; ++i) {
    Write(1, 4000);
    available_bytes -= 5000;
    owner->Receive();
    ASSERT_THAT(owner->AckAll(Durable()), IsOk());
    Pass(options_.slots_persist_micros);
    // A start makes the disk grow as it never does again: nothing is said from less than 15 s of it.
    EXPECT_EQ(source_->ForecastSlots({}).disk->growth.has_value(), i + 1 >= 15) << i;  // i + 1 seconds were seen
  }
  forecast = source_->ForecastSlots({});
  EXPECT_NEAR(forecast.append->per_second_1m, 4080, 100);
  EXPECT_NEAR(forecast.disk->growth->per_second_15m, 5000, 100);
  EXPECT_NEAR(*forecast.disk->seconds_to_full, 9'900'000 / 5000, 50);
  const SlotForecast& away = forecast.slots[0];
  EXPECT_EQ(away.slot.drain->per_second_15m, 0);
  EXPECT_FALSE(away.slot.has_session);
  EXPECT_EQ(away.cause, "retained_bytes");
  EXPECT_NEAR(*away.seconds_to_invalidation, (400'000 - 20 * 4080) / 4080.0, 3);
  const SlotForecast& here = forecast.slots[1];
  EXPECT_TRUE(here.slot.has_session);
  EXPECT_NEAR(here.slot.drain->per_second_1m, 4080, 100);
  EXPECT_FALSE(here.headroom_seconds.has_value() && *here.headroom_seconds < 10 * *away.headroom_seconds);
  EXPECT_FALSE(source_->ForecastSlots({.replica_off_seconds = 200}).slots[1].survives);
  EXPECT_EQ(source_->ForecastNode().slots.size(), 0u);

  // A slot that is new has a rate of its own.
  owner->Close();
  ASSERT_THAT(slots_->Drop("away", true), IsOk());
  AttachAt("away", Durable())->Close();
  EXPECT_FALSE(source_->ForecastSlots({}).slots[0].slot.drain.has_value());
}

}  // namespace
}  // namespace towline::test
