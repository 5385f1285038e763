// Temporary slots, copies, advances, and invalidations that are not for a limit.

#include <limits>
#include <optional>
#include <string>

#include "slots/slot_format.h"
#include "tests/slots/slot_table_fixture.h"

namespace towline::slots {
namespace {

using ::towline::test::IsOk;
using ::towline::test::ReasonIs;
using ::towline::test::SimCall;
using ::towline::test::StatusIs;

constexpr uint64_t kGeneration = 7;  // of the data
constexpr Lsn kNoFloor = std::numeric_limits<Lsn>::max();

class SlotEditsTest : public SlotTableTest {
 protected:
  absl::StatusOr<Session> TryTemporary(const std::string& name, Lsn lsn, uint64_t process = 1) {
    return table_->BeginTemporary(name, SlotKind::kConsumer, kGeneration, lsn, {process, 0}, &superseded_);
  }

  Session Temporary(const std::string& name, Lsn lsn, uint64_t process = 1) {
    absl::StatusOr<Session> session = TryTemporary(name, lsn, process);
    EXPECT_THAT(session, IsOk());
    return session.ok() ? *session : Session{};
  }

  void Create(const std::string& name, SlotKind kind, Lsn lsn) {
    ASSERT_THAT(table_->Create(name, kind, kGeneration, lsn), IsOk());
  }

  absl::StatusOr<std::optional<Slot>> Diverge(const std::string& name, uint64_t process = 1) {
    return table_->Invalidate(name, {process, 100}, "diverged", Log(5, 90), kGeneration, &superseded_);
  }

  uint64_t superseded_ = 0;
};

// --- Temporary slots ---

TEST_F(SlotEditsTest, ATemporarySlotHoldsTheLogByItsLivePositionAndGoesWithItsSession) {
  const Session session = Temporary("t", 10);
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
  EXPECT_EQ(table_->Floor(kGeneration + 1), kNoFloor);
  const Slot slot = *table_->Get("t");
  EXPECT_TRUE(slot.temporary);
  EXPECT_EQ(slot.state, SlotState::kActive);
  EXPECT_EQ(slot.generation, session.generation);
  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 21u);  // there is nothing saved that it would have to wait for
  table_->EndSession(session.id);
  EXPECT_EQ(table_->Get("t"), std::nullopt);
  EXPECT_FALSE(table_->HasSession(session.id));
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);
}

TEST_F(SlotEditsTest, ATemporarySlotIsNeverSaved) {
  const Session session = Temporary("t", 10);
  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->saves_total(), 0u);
  EXPECT_TRUE(fs_.AllContents().empty());
  Create("z", SlotKind::kReplica, 30);  // a save that has it in memory
  EXPECT_EQ(table_->Get("t")->confirmed_lsn, 20u);
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
  fs_.Reopen();
  Open();
  ASSERT_EQ(table_->List().size(), 1u);
  EXPECT_EQ(table_->List()[0].name, "z");
}

TEST_F(SlotEditsTest, ASaveUnderWayDoesNotBringBackATemporarySlotThatEnded) {
  Create("z", SlotKind::kReplica, 30);
  const Session session = Temporary("t", 10);
  fs_.SetAfterCall([&] { table_->EndSession(session.id); });
  ASSERT_THAT(table_->SaveFirstRetained(kGeneration, 5), IsOk());
  fs_.SetAfterCall(nullptr);
  EXPECT_EQ(table_->Get("t"), std::nullopt);
  EXPECT_EQ(table_->Floor(kGeneration), 31u);
}

TEST_F(SlotEditsTest, TheSameProcessTakesItsTemporarySlotOverWhereItIs) {
  const Session old = Temporary("t", 10);
  ASSERT_THAT(table_->Advance(AckOf(old, 20, 20, 20), 20), IsOk());
  const Session next = Temporary("t", 25);
  EXPECT_EQ(superseded_, old.id);
  EXPECT_EQ(next.generation, old.generation);
  EXPECT_EQ(table_->Get("t")->confirmed_lsn, 20u);
  EXPECT_THAT(table_->Advance(AckOf(old, 30, 30, 30), 30), ReasonIs("stale_session"));
  table_->EndSession(old.id);  // its stream closes late
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
  ASSERT_THAT(table_->Advance(AckOf(next, 30, 30, 30), 30), IsOk());

  const Session lower = Temporary("t", 15);  // the position that is asked for decides
  EXPECT_NE(lower.generation, next.generation);
  EXPECT_EQ(table_->Floor(kGeneration), 16u);
  EXPECT_EQ(table_->Get("t")->state, SlotState::kActive);
}

TEST_F(SlotEditsTest, NobodyElseGetsTheNameOfATemporarySlot) {
  Temporary("t", 10);
  EXPECT_THAT(TryTemporary("t", 10, 2), ReasonIs("slot_in_use"));
  EXPECT_THAT(table_->Create("t", SlotKind::kConsumer, kGeneration, 10), ReasonIs("slot_exists"));
  Create("s", SlotKind::kConsumer, 10);
  EXPECT_THAT(TryTemporary("s", 10), ReasonIs("slot_exists"));
  EXPECT_THAT(TryTemporary("../x", 10), ReasonIs("invalid_name"));
}

TEST_F(SlotEditsTest, ATemporarySlotObeysTheLimitsAndRevives) {
  limits_.max_retained_bytes = 1000;
  Open();
  const Session session = Temporary("t", 10);
  ASSERT_THAT(table_->EnforceLimits(Log(1, 30), kGeneration), IsOk());
  EXPECT_EQ(table_->Get("t")->state, SlotState::kInvalidated);
  EXPECT_EQ(table_->Get("t")->invalidation->cause, "retained_bytes");
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);
  EXPECT_TRUE(table_->HasSession(session.id));
  ASSERT_THAT(table_->Advance(AckOf(session, 28, 28, 28), 28), IsOk());
  ASSERT_THAT(table_->Revive("t"), IsOk());
  EXPECT_EQ(table_->Get("t")->state, SlotState::kActive);
  EXPECT_EQ(table_->Floor(kGeneration), 29u);
}

TEST_F(SlotEditsTest, ASwitchOfTheLogEndsTemporarySlotsBeyondItsEnd) {
  Temporary("t", 10);
  ASSERT_THAT(table_->SwitchDataGeneration(kGeneration + 1, 1, 5), IsOk());
  EXPECT_EQ(table_->Get("t"), std::nullopt);
}

TEST_F(SlotEditsTest, TemporarySlotsAreLimitedInNumber) {
  for (size_t i = 0; i < kSlotsMax; ++i) Temporary("t" + std::to_string(i), 10);
  EXPECT_THAT(TryTemporary("one-more", 10), ReasonIs("slot_limit"));
  EXPECT_THAT(table_->Create("one-more", SlotKind::kReplica, kGeneration, 0), ReasonIs("slot_limit"));
}

// --- Copy ---

TEST_F(SlotEditsTest, ACopyStandsWhereTheSourceIsSavedAndLivesItsOwnLife) {
  Create("a", SlotKind::kConsumer, 10);
  const Session a = Begin("a");
  ASSERT_THAT(table_->Advance(AckOf(a, 20, 20, 20), 20), IsOk());
  const absl::StatusOr<Slot> copy = table_->Copy("a", "b", kGeneration, 11);
  ASSERT_THAT(copy, IsOk());
  EXPECT_EQ(copy->kind, SlotKind::kConsumer);
  EXPECT_EQ(copy->confirmed_lsn, 10u);  // 20 is in memory only
  EXPECT_EQ(copy->data_generation, kGeneration);
  EXPECT_NE(copy->generation, table_->Get("a")->generation);
  EXPECT_EQ(copy->owner_incarnation, 0u);
  EXPECT_EQ(table_->Floor(kGeneration), 11u);  // the source has moved on, with the same save
  ASSERT_THAT(table_->Drop("b", false), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
  ASSERT_THAT(table_->Copy("a", "b", kGeneration, 11), IsOk());
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("b")->confirmed_lsn, 20u);
}

TEST_F(SlotEditsTest, TheFloorNeverPassesACopyThatIsBeingSaved) {
  Create("a", SlotKind::kConsumer, 10);
  const Session a = Begin("a");
  fs_.SetAfterCall([&] {
    ASSERT_THAT(table_->Advance(AckOf(a, 40, 40, 40), 40), IsOk());
    EXPECT_LE(table_->Floor(kGeneration), 11u);
  });
  ASSERT_THAT(table_->Copy("a", "b", kGeneration, 1), IsOk());
  fs_.SetAfterCall(nullptr);
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
}

TEST_F(SlotEditsTest, WhatAnotherNodeServesIsNotEditedHere) {
  SlotImage image;
  Slot slot;
  slot.name = "a";
  slot.generation = 1;
  slot.data_generation = kGeneration;
  slot.kind = SlotKind::kConsumer;
  slot.confirmed_lsn = 500;  // of the log of p1
  slot.origin = "p1";
  image.slots.push_back(slot);
  TwoCopyFile file(fs_, "/", "slots", kSlotsMagic, kSlotsCapacity);
  ASSERT_THAT(file.SaveBoth(kSlotsVersion, EncodeSlots(image)), IsOk());
  Open();
  EXPECT_THAT(table_->Copy("a", "b", kGeneration, 1), ReasonIs("slot_is_copy"));
  EXPECT_THAT(table_->AdvanceTo("a", 501, kGeneration, 600), ReasonIs("slot_is_copy"));
  EXPECT_THAT(table_->Drop("a", /*force=*/false), ReasonIs("slot_is_copy"));
  EXPECT_TRUE(ProvingSlots(table_->List(), kGeneration).empty());
  EXPECT_THAT(table_->Drop("a", /*force=*/true), IsOk());
}

TEST_F(SlotEditsTest, WhatDoesNotHoldItsLogIsNotCopied) {
  Create("a", SlotKind::kReplica, 10);
  EXPECT_THAT(table_->Copy("none", "b", kGeneration, 1), ReasonIs("slot_not_found"));
  EXPECT_THAT(table_->Copy("a", "../b", kGeneration, 1), ReasonIs("invalid_name"));
  EXPECT_THAT(table_->Copy("a", "a", kGeneration, 1), ReasonIs("slot_exists"));
  EXPECT_THAT(table_->Copy("a", "b", kGeneration, 12), ReasonIs("wal_removed"));
  EXPECT_THAT(table_->Copy("a", "b", kGeneration + 1, 1), ReasonIs("wal_removed"));
  ASSERT_THAT(table_->NewGeneration("a", kGeneration, 10, SlotState::kBootstrapping, "wal_removed", false), IsOk());
  EXPECT_THAT(table_->Copy("a", "b", kGeneration, 1), ReasonIs("slot_bootstrapping"));
  ASSERT_THAT(table_->NewGeneration("a", kGeneration, 10, SlotState::kRewinding, "diverged", false), IsOk());
  EXPECT_THAT(table_->Copy("a", "b", kGeneration, 1), ReasonIs("slot_rewinding"));
  ASSERT_THAT(Diverge("a"), IsOk());
  const absl::Status refused = table_->Copy("a", "b", kGeneration, 1).status();
  EXPECT_THAT(refused, ReasonIs("slot_invalidated"));
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("needed LSN 11"));
  EXPECT_EQ(table_->List().size(), 1u);
}

// --- Advance ---

TEST_F(SlotEditsTest, AnAdvanceIsSavedAndOnlyGoesUp) {
  Create("c", SlotKind::kConsumer, 10);
  ASSERT_THAT(table_->AdvanceTo("c", 20, kGeneration, 90), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
  const uint64_t saves = table_->saves_total();
  ASSERT_THAT(table_->AdvanceTo("c", 20, kGeneration, 90), IsOk());
  EXPECT_EQ(table_->saves_total(), saves);
  const absl::Status back = table_->AdvanceTo("c", 19, kGeneration, 90).status();
  EXPECT_THAT(back, StatusIs(absl::StatusCode::kOutOfRange));
  EXPECT_THAT(back, ReasonIs("advance_backwards"));
  EXPECT_THAT(std::string(back.message()), ::testing::HasSubstr("20"));
  EXPECT_THAT(table_->AdvanceTo("c", 91, kGeneration, 90), ReasonIs("lsn_out_of_range"));
  EXPECT_THAT(table_->AdvanceTo("c", kNoFloor, kGeneration, 90), ReasonIs("lsn_out_of_range"));
  ASSERT_THAT(table_->AdvanceTo("c", 90, kGeneration, 90), IsOk());
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("c")->confirmed_lsn, 90u);
  EXPECT_EQ(table_->Get("c")->flushed_lsn, 90u);
}

TEST_F(SlotEditsTest, AnEqualAdvanceSavesWhatWasInMemoryOnly) {
  Create("c", SlotKind::kConsumer, 10);
  const Session session = Begin("c");
  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  table_->EndSession(session.id);
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
  ASSERT_THAT(table_->AdvanceTo("c", 20, kGeneration, 90), IsOk());
  EXPECT_EQ(table_->Floor(kGeneration), 21u);
}

TEST_F(SlotEditsTest, OnlyAnIdleConsumerThatHoldsTheLogIsAdvanced) {
  Create("r", SlotKind::kReplica, 10);
  Create("c", SlotKind::kConsumer, 10);
  EXPECT_THAT(table_->AdvanceTo("none", 20, kGeneration, 90), ReasonIs("slot_not_found"));
  EXPECT_THAT(table_->AdvanceTo("r", 20, kGeneration, 90), ReasonIs("slot_kind"));
  EXPECT_THAT(table_->AdvanceTo("c", 20, kGeneration + 1, 90), ReasonIs("wal_removed"));
  const Session session = Begin("c");
  EXPECT_THAT(table_->AdvanceTo("c", 20, kGeneration, 90), ReasonIs("slot_in_use"));
  table_->EndSession(session.id);
  ASSERT_THAT(Diverge("c"), IsOk());
  EXPECT_THAT(table_->AdvanceTo("c", 20, kGeneration, 90), ReasonIs("slot_invalidated"));
  EXPECT_EQ(table_->Get("c")->confirmed_lsn, 10u);
}

TEST_F(SlotEditsTest, AnAdvanceThatCannotBeSavedDoesNotHappen) {
  Create("c", SlotKind::kConsumer, 10);
  fs_.FailNext(SimCall::kWrite, absl::DataLossError("injected"), "slots");
  EXPECT_THAT(table_->AdvanceTo("c", 20, kGeneration, 90), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
  EXPECT_EQ(table_->Get("c")->confirmed_lsn, 10u);
}

// --- Invalidate ---

TEST_F(SlotEditsTest, AnInvalidationIsSavedLoggedOnceAndEndsTheOwnersSession) {
  Create("r", SlotKind::kReplica, 10);
  const Session session = Begin("r");
  const absl::StatusOr<std::optional<Slot>> invalidated = Diverge("r");
  ASSERT_THAT(invalidated, IsOk());
  ASSERT_TRUE(invalidated->has_value());
  EXPECT_EQ((*invalidated)->state, SlotState::kInvalidated);
  EXPECT_EQ((*invalidated)->invalidation,
            (Invalidation{"diverged", 90, (*invalidated)->invalidation->at_time_ms, 11, 5}));
  EXPECT_EQ(superseded_, session.id);
  EXPECT_FALSE(table_->HasSession(session.id));
  EXPECT_EQ(table_->Floor(kGeneration), kNoFloor);
  EXPECT_EQ(*Diverge("r"), std::nullopt);
  EXPECT_EQ(logger_.Events("slot_invalidated").size(), 1u);
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("r")->invalidation->cause, "diverged");
}

TEST_F(SlotEditsTest, AnInvalidationLeavesAloneWhatAnotherUsesOrWhatHoldsNothingForIt) {
  EXPECT_EQ(*Diverge("none"), std::nullopt);
  Create("r", SlotKind::kReplica, 10);
  const Session session = Begin("r", 1);
  EXPECT_EQ(*Diverge("r", 2), std::nullopt);
  EXPECT_TRUE(table_->HasSession(session.id));
  EXPECT_EQ(table_->Floor(kGeneration), 11u);
  ASSERT_THAT(table_->NewGeneration("r", kGeneration, 10, SlotState::kBootstrapping, "diverged", false), IsOk());
  EXPECT_EQ(*Diverge("r"), std::nullopt);
  EXPECT_EQ(table_->Get("r")->state, SlotState::kBootstrapping);
  ASSERT_THAT(table_->Create("other", SlotKind::kReplica, kGeneration + 1, 10), IsOk());
  EXPECT_EQ(*Diverge("other"), std::nullopt);
}

}  // namespace
}  // namespace towline::slots
