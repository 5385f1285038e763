// Tests of SlotTable: sessions, acks, generations, limits, and what counts as saved.

#include "slots/slot_table.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "slots/slot_format.h"
#include "tests/slots/slot_table_fixture.h"
#include "tests/support/status_matchers.h"

namespace towline::slots {
namespace {

using ::towline::test::IsOk;
using ::towline::test::ReasonIs;
using ::towline::test::SimCall;
using ::towline::test::StatusIs;

constexpr uint64_t kGeneration = 7;  // of the data
constexpr Lsn kNoFloor = std::numeric_limits<Lsn>::max();
constexpr int64_t kHour = 3600ll * 1'000'000;

TEST_F(SlotTableTest, AnEmptyDirectoryHoldsNoSlotAndHoldsNothingBack) {
  EXPECT_TRUE(table_->List().empty());
  EXPECT_FALSE(table_->unknown());
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);
  EXPECT_TRUE(fs_.AllContents().empty());  // a first start must leave the directory recognisably empty
}

TEST_F(SlotTableTest, ACreatedSlotIsThereAfterReopening) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 41), IsOk());
  const Slot before = *table_->Get("r1");
  fs_.Reopen();
  Open();
  EXPECT_EQ(*table_->Get("r1"), before);
  EXPECT_EQ(before.confirmed_lsn, 41u);
  EXPECT_EQ(before.flushed_lsn, 41u);
  EXPECT_EQ(before.state, SlotState::kInactive);
  EXPECT_NE(before.generation, 0u);
  EXPECT_EQ(table_->Floor(kGeneration), 42u);
}

TEST_F(SlotTableTest, NamesAreCheckedAndUnique) {
  EXPECT_THAT(table_->Create("../x", SlotKind::kReplica, kGeneration, 0), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 0), IsOk());
  EXPECT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 0), ReasonIs("slot_exists"));
  EXPECT_THAT(table_->Drop("r2", false), ReasonIs("slot_not_found"));
}

TEST_F(SlotTableTest, ATableThatWouldNotFitIsRefused) {
  SlotImage image;  // a full table, written without hundreds of saves
  for (size_t i = 0; i < kSlotsMax; ++i) {
    Slot slot;
    slot.name = std::string(kSlotTextSizeMax - 4, 'a') + std::to_string(1000 + i);
    slot.generation = 1 + i;
    slot.state = SlotState::kInvalidated;
    slot.bootstrap_reason = slot.origin = std::string(kSlotTextSizeMax, 'b');
    slot.invalidation.emplace().cause = std::string(kSlotTextSizeMax, 'c');
    image.slots.push_back(slot);
  }
  for (uint64_t i = 0; i < kFirstRetainedMax; ++i) image.first_retained[i] = i;
  TwoCopyFile file(fs_, "/", "slots", kSlotsMagic, kSlotsCapacity);
  const std::string payload = EncodeSlots(image);
  EXPECT_LE(payload.size() + kTwoCopyHeaderSize, kSlotsCapacity);
  EXPECT_GT(payload.size() + kTwoCopyHeaderSize + kSlotSizeMax, kSlotsCapacity);
  ASSERT_THAT(file.SaveBoth(kSlotsVersion, payload), IsOk());
  Open();
  EXPECT_EQ(table_->List().size(), kSlotsMax);
  EXPECT_THAT(table_->Create("one-more", SlotKind::kReplica, kGeneration, 0), ReasonIs("slot_limit"));
  ASSERT_THAT(table_->Drop(image.slots[0].name, /*force=*/true), IsOk());
  EXPECT_THAT(table_->Create("one-more", SlotKind::kReplica, kGeneration, 0), IsOk());
}

TEST_F(SlotTableTest, AcksMoveTheLiveValuesAndOnlyASaveMovesTheFloor) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session session = Begin("r1");
  ASSERT_THAT(table_->Advance(AckOf(session, 30, 20, 15), 30), IsOk());
  const Slot slot = *table_->Get("r1");
  EXPECT_EQ(slot.state, SlotState::kActive);
  EXPECT_EQ(slot.received_lsn, 30u);
  EXPECT_EQ(slot.flushed_lsn, 20u);
  EXPECT_EQ(slot.applied_lsn, 15u);
  EXPECT_EQ(slot.confirmed_lsn, 20u);
  EXPECT_EQ(table_->Floor(kGeneration), 11u);

  const uint64_t saves = table_->saves_total();
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
  EXPECT_EQ(table_->saves_total(), saves + 1);
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->saves_total(), saves + 1);  // nothing new
}

TEST_F(SlotTableTest, AFailedSaveLeavesTheFloorAndIsRepeated) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session session = Begin("r1");
  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  fs_.FailNext(SimCall::kSync, absl::DataLossError("injected"));
  EXPECT_THAT(table_->SaveIfDirty(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
}

TEST_F(SlotTableTest, AFailedChangeLeavesTheTableAsItWas) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const std::vector<Slot> before = table_->List();
  const absl::Status error = absl::DataLossError("injected");
  fs_.FailNext(SimCall::kWrite, error);
  EXPECT_FALSE(table_->Create("r2", SlotKind::kReplica, kGeneration, 5).ok());
  fs_.FailNext(SimCall::kWrite, error);
  EXPECT_FALSE(table_->Drop("r1", false).ok());
  fs_.FailNext(SimCall::kWrite, error);
  EXPECT_FALSE(table_->NewGeneration("r1", kGeneration, 5, SlotState::kInactive, "", false).ok());
  fs_.FailNext(SimCall::kWrite, error);
  EXPECT_FALSE(table_->SaveFirstRetained(kGeneration, 3).ok());
  EXPECT_EQ(table_->List(), before);
  EXPECT_EQ(table_->first_retained(kGeneration), 0u);
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
}

TEST_F(SlotTableTest, ForgedAndStaleAcksChangeNothing) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session session = Begin("r1");
  const Slot before = *table_->Get("r1");

  Ack ack = AckOf(session, 20, 20, 20);
  ack.session_id ^= 1;
  EXPECT_THAT(table_->Advance(ack, 20), ReasonIs("stale_session"));
  ack = AckOf(session, 20, 20, 20);
  ack.generation ^= 1;
  EXPECT_THAT(table_->Advance(ack, 20), ReasonIs("stale_generation"));
  EXPECT_THAT(table_->Advance(AckOf(session, 21, 20, 20), 20), ReasonIs("ack_ahead"));
  EXPECT_THAT(table_->Advance(AckOf(session, 20, 21, 20), 20), ReasonIs("ack_ahead"));
  EXPECT_THAT(table_->Advance(AckOf(session, 20, 20, 21), 20), ReasonIs("ack_ahead"));
  EXPECT_THAT(table_->Advance(AckOf(session, 20, uint64_t{1} << 63, 20), 20), ReasonIs("ack_ahead"));
  EXPECT_THAT(table_->Advance(AckOf(session, kNoFloor, kNoFloor, kNoFloor), 20), ReasonIs("ack_ahead"));
  EXPECT_THAT(table_->Advance(AckOf(session, 15, 16, 15), 20), ReasonIs("ack_order"));
  EXPECT_THAT(table_->Advance(AckOf(session, 15, 15, 16), 20), ReasonIs("ack_order"));
  EXPECT_EQ(*table_->Get("r1"), before);

  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  ASSERT_THAT(table_->Advance(AckOf(session, 12, 11, 12), 20), IsOk());  // late: ignored
  EXPECT_EQ(table_->Get("r1")->confirmed_lsn, 20u);
  EXPECT_EQ(table_->Get("r1")->received_lsn, 20u);
}

TEST_F(SlotTableTest, OneSessionPerSlotAndTheSameProcessSupersedesItsOwn) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session first = Begin("r1", 1);
  uint64_t superseded = 99;
  EXPECT_THAT(table_->BeginSession("r1", {2, 100}, &superseded), ReasonIs("slot_in_use"));
  EXPECT_EQ(superseded, 0u);
  EXPECT_TRUE(table_->HasSession(first.id));

  absl::StatusOr<Session> second = table_->BeginSession("r1", {1, 100}, &superseded);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(superseded, first.id);
  EXPECT_FALSE(table_->HasSession(first.id));
  EXPECT_THAT(table_->Advance(AckOf(first, 11, 11, 11), 20), ReasonIs("stale_session"));
  table_->EndSession(first.id);  // late: ignored
  EXPECT_TRUE(table_->HasSession(second->id));
  EXPECT_THAT(table_->Advance(AckOf(*second, 11, 11, 11), 20), IsOk());
  table_->EndSession(second->id);
  EXPECT_EQ(table_->Get("r1")->state, SlotState::kInactive);
  Begin("r1", 2);
}

TEST_F(SlotTableTest, ReceivedAndAppliedStartAgainWithTheConnection) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session first = Begin("r1");
  ASSERT_THAT(table_->Advance(AckOf(first, 20, 15, 12), 20), IsOk());
  Begin("r1");
  const Slot slot = *table_->Get("r1");
  EXPECT_EQ(slot.received_lsn, 0u);
  EXPECT_EQ(slot.applied_lsn, 0u);
  EXPECT_EQ(slot.flushed_lsn, 15u);
  EXPECT_EQ(slot.confirmed_lsn, 15u);
}

TEST_F(SlotTableTest, ASlotInUseIsDroppedOnlyByForceAndItsSessionEnds) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session session = Begin("r1");
  EXPECT_THAT(table_->Drop("r1", false), ReasonIs("slot_in_use"));
  ASSERT_THAT(table_->Drop("r1", true), IsOk());
  EXPECT_FALSE(table_->HasSession(session.id));
  EXPECT_THAT(table_->Advance(AckOf(session, 11, 11, 11), 20), ReasonIs("stale_session"));
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);
  fs_.Reopen();
  Open();
  EXPECT_TRUE(table_->List().empty());
}

TEST_F(SlotTableTest, ANewGenerationMovesTheFloorDownBeforeItReturns) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 50), IsOk());
  const Session session = Begin("r1");
  ASSERT_THAT(table_->Advance(AckOf(session, 60, 60, 60), 60), IsOk());
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());

  absl::StatusOr<Slot> slot = table_->NewGeneration("r1", kGeneration, 5, SlotState::kInactive, "", true);
  ASSERT_THAT(slot, IsOk());
  EXPECT_NE(slot->generation, session.generation);
  EXPECT_EQ(slot->confirmed_lsn, 5u);
  EXPECT_EQ(slot->flushed_lsn, 5u);
  EXPECT_EQ(slot->state, SlotState::kActive);  // the session goes on
  EXPECT_EQ(table_->Floor(kGeneration), 6u);
  EXPECT_THAT(table_->Advance(AckOf(session, 60, 60, 60), 60), ReasonIs("stale_generation"));
  EXPECT_THAT(table_->Advance({session.id, slot->generation, 7, 7, 7}, 60), IsOk());

  ASSERT_THAT(table_->NewGeneration("r1", kGeneration, 3, SlotState::kInactive, "", false), IsOk());
  EXPECT_FALSE(table_->HasSession(session.id));
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("r1")->confirmed_lsn, 3u);
}

TEST_F(SlotTableTest, AFullResyncHoldsTheLogFromItsPositionUntilTheOwnerStreams) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 50), IsOk());
  Session session = Begin("r1");
  absl::StatusOr<Slot> slot =
      table_->NewGeneration("r1", kGeneration, 40, SlotState::kBootstrapping, "wal_removed", true);
  ASSERT_THAT(slot, IsOk());
  EXPECT_EQ(slot->flushed_lsn, 0u);  // the owner has nothing of it yet
  EXPECT_THAT(table_->RaiseConfirmed("r1", slot->generation ^ 1, 60), ReasonIs("stale_generation"));
  ASSERT_THAT(table_->RaiseConfirmed("r1", slot->generation, 60), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 61u);
  ASSERT_THAT(table_->RaiseConfirmed("r1", slot->generation, 55), IsOk());
  EXPECT_EQ(table_->Get("r1")->confirmed_lsn, 60u);

  table_->EndSession(session.id);
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("r1")->state, SlotState::kBootstrapping);
  EXPECT_EQ(table_->Get("r1")->bootstrap_reason, "wal_removed");
  EXPECT_EQ(table_->Floor(kGeneration), 61u);

  session = Begin("r1");
  EXPECT_EQ(table_->Get("r1")->state, SlotState::kBootstrapping);
  ASSERT_THAT(table_->Advance(AckOf(session, 70, 0, 0), 70), IsOk());  // flushed below the pin: nothing moves
  EXPECT_EQ(table_->Get("r1")->confirmed_lsn, 60u);
  ASSERT_THAT(table_->Revive("r1"), IsOk());
  EXPECT_EQ(table_->Get("r1")->state, SlotState::kActive);
  EXPECT_EQ(table_->Get("r1")->bootstrap_reason, "");
}

TEST_F(SlotTableTest, EachLimitInvalidatesOnceWithItsCauseAndNumbers) {
  limits_ = {.max_retained_bytes = 1000, .consumer_idle_micros = 24 * kHour, .replica_idle_micros = 0};
  Open();
  ASSERT_THAT(table_->Create("big", SlotKind::kReplica, kGeneration, 89), IsOk());
  ASSERT_THAT(table_->Create("gone", SlotKind::kReplica, kGeneration, 10), IsOk());
  ASSERT_THAT(table_->Create("idle", SlotKind::kConsumer, kGeneration, 95), IsOk());
  ASSERT_THAT(table_->Create("slow", SlotKind::kReplica, kGeneration, 95), IsOk());
  ASSERT_THAT(table_->Create("used", SlotKind::kConsumer, kGeneration, 95), IsOk());
  Begin("used");
  clock_.Advance(24 * kHour + 1);

  absl::StatusOr<std::vector<Slot>> invalidated = table_->EnforceLimits(Log(12, 100), kGeneration);
  ASSERT_THAT(invalidated, IsOk());
  ASSERT_EQ(invalidated->size(), 3u);
  const uint64_t now_ms = static_cast<uint64_t>(clock_.WallMicros()) / 1000;
  EXPECT_EQ(*(*invalidated)[0].invalidation, (Invalidation{"retained_bytes", 100, now_ms, 90, 12}));
  EXPECT_EQ(*(*invalidated)[1].invalidation, (Invalidation{"wal_removed", 100, now_ms, 11, 12}));
  EXPECT_EQ(*(*invalidated)[2].invalidation, (Invalidation{"idle_timeout", 100, now_ms, 96, 12}));
  EXPECT_EQ(logger_.Events("slot_invalidated").size(), 3u);
  EXPECT_EQ(table_->Floor(kGeneration), 96u);  // slow and used hold it; the others pin nothing

  const uint64_t saves = table_->saves_total();
  invalidated = table_->EnforceLimits(Log(50, 200), kGeneration);
  ASSERT_THAT(invalidated, IsOk());
  ASSERT_EQ(invalidated->size(), 2u);  // the first cause of the other three sticks
  EXPECT_EQ(table_->Get("big")->invalidation->at_lsn, 100u);
  EXPECT_EQ(table_->saves_total(), saves + 1);
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);

  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("gone")->invalidation->cause, "wal_removed");
  ASSERT_THAT(table_->Revive("gone"), IsOk());
  EXPECT_FALSE(table_->Get("gone")->invalidation.has_value());
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
}

// The order: without a session before with one, consumers before replicas, the longest without a session first, then
// who holds most. What holds no more than is kept anyway is never given up.
TEST_F(SlotTableTest, ANearlyFullDiskInvalidatesOneSlotAfterTheOther) {
  limits_ = {
      .max_retained_bytes = 1 << 20, .consumer_idle_micros = 0, .replica_idle_micros = 0, .disk_guard_ratio = 0.9};
  Open();
  const auto create = [this](const char* name, SlotKind kind, Lsn confirmed) {
    ASSERT_THAT(table_->Create(name, kind, kGeneration, confirmed), IsOk());
    clock_.Advance(kHour);
  };
  create("r-old", SlotKind::kReplica, 10);
  create("c-old", SlotKind::kConsumer, 20);
  create("c-new", SlotKind::kConsumer, 5);
  create("c-small", SlotKind::kConsumer, 95);  // 500 bytes
  create("r-used", SlotKind::kReplica, 10);
  create("c-used", SlotKind::kConsumer, 30);
  Begin("r-used");
  Begin("c-used");
  LogView log = Log(1, 100);
  log.kept_bytes = 500;
  log.disk_used_ratio = 0.899;
  EXPECT_TRUE(table_->EnforceLimits(log, kGeneration)->empty());
  log.disk_used_ratio = 0.9;
  for (const char* expected : {"c-old", "c-new", "r-old", "c-used", "r-used"}) {
    const absl::StatusOr<std::vector<Slot>> invalidated = table_->EnforceLimits(log, kGeneration);
    ASSERT_THAT(invalidated, IsOk());
    ASSERT_EQ(invalidated->size(), 1u) << expected;
    EXPECT_EQ(invalidated->front().name, expected);
    EXPECT_EQ(invalidated->front().invalidation->cause, "disk_pressure");
  }
  EXPECT_TRUE(table_->EnforceLimits(log, kGeneration)->empty());
  EXPECT_EQ(table_->Floor(kGeneration), 96u);

  // A slot over its own limit goes first, and alone: it may be room enough.
  ASSERT_THAT(table_->Revive("c-old"), IsOk());
  ASSERT_THAT(table_->Revive("r-old"), IsOk());
  log.first_lsn = 15;
  const absl::StatusOr<std::vector<Slot>> invalidated = table_->EnforceLimits(log, kGeneration);
  ASSERT_EQ(invalidated->size(), 1u);
  EXPECT_EQ(invalidated->front().invalidation->cause, "wal_removed");
}

TEST_F(SlotTableTest, WantOfSpaceTakesNoSlotThatACommitLevelNeeds) {
  limits_ = {
      .max_retained_bytes = 1 << 20, .consumer_idle_micros = 0, .replica_idle_micros = 0, .disk_guard_ratio = 0.9};
  Open();
  for (const char* name : {"r1", "r2", "x1"}) {
    ASSERT_THAT(table_->Create(name, SlotKind::kReplica, kGeneration, 10), IsOk());
  }
  LogView log = Log(1, 100);
  log.disk_used_ratio = 0.95;
  log.needed_slots = {"r1", "r2"};
  log.needed_count = 1;
  std::vector<std::string> given_up;
  for (int i = 0; i < 4; ++i) {
    const absl::StatusOr<std::vector<Slot>> invalidated = table_->EnforceLimits(log, kGeneration);
    ASSERT_THAT(invalidated, IsOk());
    for (const Slot& slot : *invalidated) given_up.push_back(slot.name);
  }
  EXPECT_EQ(given_up.size(), 2u);  // one of the two stays
  EXPECT_NE(table_->Floor(kGeneration), std::numeric_limits<Lsn>::max());
  log.needed_count = 0;
  EXPECT_EQ(table_->EnforceLimits(log, kGeneration)->size(), 1u);
}

TEST_F(SlotTableTest, IdleTimeStartsAgainWithTheProcessAndIgnoresTheWallClock) {
  ASSERT_THAT(table_->Create("c1", SlotKind::kConsumer, kGeneration, 95), IsOk());
  clock_.Advance(23 * kHour);
  fs_.Reopen();
  Open();
  clock_.JumpWall(1000 * kHour);
  clock_.Advance(23 * kHour);
  absl::StatusOr<std::vector<Slot>> invalidated = table_->EnforceLimits(Log(1, 100), kGeneration);
  ASSERT_THAT(invalidated, IsOk());
  EXPECT_TRUE(invalidated->empty());
  EXPECT_EQ(table_->IdleMicros("c1"), 23 * kHour);
  table_->RestartIdleTimes();
  EXPECT_EQ(table_->IdleMicros("c1"), 0);
  clock_.Advance(23 * kHour);
  EXPECT_TRUE(table_->EnforceLimits(Log(1, 100), kGeneration)->empty());
  clock_.Advance(2 * kHour);
  EXPECT_EQ(table_->EnforceLimits(Log(1, 100), kGeneration)->size(), 1u);
  Begin("c1");
  EXPECT_FALSE(table_->IdleMicros("c1").has_value());
  EXPECT_FALSE(table_->IdleMicros("nobody").has_value());
}

TEST_F(SlotTableTest, SlotsOfAnotherDataGenerationHoldNothing) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration, 5), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration + 1), kNoFloor);
  EXPECT_EQ(table_->first_retained(kGeneration + 1), 0u);
  EXPECT_TRUE(table_->EnforceLimits(Log(1000, 2000), kGeneration + 1)->empty());
}

TEST_F(SlotTableTest, ASwitchOfTheDataGenerationKeepsNamesAndClampsInNewGenerations) {
  ASSERT_THAT(table_->Create("ahead", SlotKind::kReplica, kGeneration, 100), IsOk());
  ASSERT_THAT(table_->Create("below", SlotKind::kReplica, kGeneration, 30), IsOk());
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration, 5), IsOk());
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration + 1, 8), IsOk());
  const Session ahead = Begin("ahead");
  const Session below = Begin("below");
  ASSERT_THAT(table_->SwitchDataGeneration(kGeneration + 1, 31, 40), IsOk());
  EXPECT_EQ(table_->Get("ahead")->confirmed_lsn, 40u);
  EXPECT_NE(table_->Get("ahead")->generation, ahead.generation);
  EXPECT_FALSE(table_->HasSession(ahead.id));
  EXPECT_EQ(table_->Get("below")->confirmed_lsn, 30u);
  EXPECT_EQ(table_->Get("below")->generation, below.generation);
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);
  EXPECT_EQ(table_->Floor(kGeneration + 1), 31u);
  EXPECT_EQ(table_->first_retained(kGeneration), 0u);
  EXPECT_EQ(table_->first_retained(kGeneration + 1), 8u);
}

TEST_F(SlotTableTest, ASwitchOfTheDataGenerationInvalidatesWhatItsLogDoesNotHold) {
  ASSERT_THAT(table_->Create("lost", SlotKind::kConsumer, kGeneration, 29), IsOk());
  ASSERT_THAT(table_->Create("held", SlotKind::kConsumer, kGeneration, 30), IsOk());
  ASSERT_THAT(table_->SwitchDataGeneration(kGeneration + 1, 31, 40), IsOk());
  for (int i = 0; i < 2; ++i) {  // now, and as it was saved
    const Slot lost = *table_->Get("lost");
    EXPECT_EQ(lost.state, SlotState::kInvalidated);
    EXPECT_EQ(lost.invalidation->cause, "wal_removed");
    EXPECT_EQ(lost.invalidation->needed_lsn, 30u);
    EXPECT_EQ(lost.invalidation->oldest_lsn, 31u);
    EXPECT_EQ(table_->Get("held")->state, SlotState::kInactive);
    EXPECT_EQ(table_->Floor(kGeneration + 1), 31u);
    fs_.Reopen();
    Open();
  }
}

TEST_F(SlotTableTest, TheFirstRetainedLsnOnlyRises) {
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration, 9), IsOk());
  const uint64_t saves = table_->saves_total();
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration, 9), IsOk());
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration, 4), IsOk());
  EXPECT_EQ(table_->first_retained(kGeneration), 9u);
  EXPECT_EQ(table_->saves_total(), saves);
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->first_retained(kGeneration), 9u);
}

TEST_F(SlotTableTest, ASaveOfAckedProgressIsOneWriteAndOneSync) {
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kGeneration, 10), IsOk());
  const Session session = Begin("r1");
  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  fs_.ClearLog();
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(fs_.log().size(), 2u);  // one write and its sync
}

}  // namespace
}  // namespace towline::slots
