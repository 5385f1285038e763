// Tests of copies of another node's slots: what is told, what is saved of it, and what a promotion makes of it.

#include "slots/slot_copies.h"

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

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::towline::test::IsOk;

constexpr uint64_t kData = 7;  // generation of the data
constexpr Lsn kNoFloor = std::numeric_limits<Lsn>::max();

SlotCopy Told(const std::string& name, Lsn confirmed_lsn, uint64_t generation = 1, SlotKind kind = SlotKind::kReplica) {
  return {name, kind, generation, confirmed_lsn, false, 1000, 2000};
}

SlotCopies All(std::vector<SlotCopy> slots, Term term = 1) { return {term, "p1", true, std::move(slots), {}}; }

// --- Feed ---

std::vector<std::string> Names(const SlotCopies& copies) {
  std::vector<std::string> names;
  for (const SlotCopy& copy : copies.slots) names.push_back(copy.name);
  return names;
}

TEST(SlotFeedTest, AReaderGetsEverythingOnceAndThenWhatIsNew) {
  SlotFeed feed;
  EXPECT_EQ(feed.version(), 0u);
  feed.Take(All({Told("a", 1), Told("b", 2)}));
  const uint64_t first = feed.version();
  EXPECT_NE(first, 0u);
  EXPECT_TRUE(feed.Since(0).complete);
  EXPECT_THAT(Names(feed.Since(0)), ElementsAre("a", "b"));
  EXPECT_THAT(Names(feed.Since(first)), IsEmpty());

  SlotCopy alive = Told("a", 1);
  alive.last_active_time_ms = 9999;  // no news by itself
  feed.Take(All({alive, Told("b", 2)}));
  EXPECT_EQ(feed.version(), first);

  feed.Take(All({alive, Told("b", 3), Told("c", 1)}));
  const SlotCopies news = feed.Since(first);
  EXPECT_FALSE(news.complete);
  EXPECT_EQ(news.origin, "p1");
  EXPECT_THAT(Names(news), ElementsAre("b", "c"));
  EXPECT_THAT(Names(feed.Since(0)), ElementsAre("a", "b", "c"));
}

TEST(SlotFeedTest, DroppedSlotsAreToldByName) {
  SlotFeed feed;
  feed.Take(All({Told("a", 1), Told("b", 2)}));
  const uint64_t first = feed.version();
  feed.Take(All({Told("b", 2)}));
  EXPECT_THAT(feed.Since(first).dropped, ElementsAre("a"));
  EXPECT_THAT(feed.Since(0).dropped, IsEmpty());
  feed.Take(All({Told("a", 1), Told("b", 2)}));  // it is there again
  EXPECT_THAT(feed.Since(first).dropped, IsEmpty());
  EXPECT_THAT(Names(feed.Since(first)), ElementsAre("a"));
}

TEST(SlotFeedTest, PartsArePassedOn) {
  SlotFeed from;
  SlotFeed to;
  uint64_t known = 0;
  const auto pass = [&] {
    to.Take(from.Since(known));
    known = from.version();
    EXPECT_EQ(to.Since(0).slots, from.Since(0).slots);
    EXPECT_EQ(to.Since(0).origin, from.Since(0).origin);
  };
  from.Take(All({Told("a", 1)}));
  pass();
  from.Take(All({Told("a", 5), Told("b", 2)}));
  pass();
  from.Take(All({Told("b", 2, /*generation=*/9)}));
  pass();
  SlotCopies other = All({Told("b", 1)});
  other.origin = "p2";
  from.Take(other);
  EXPECT_TRUE(from.Since(known).complete);
  pass();
  EXPECT_EQ(to.Since(0).origin, "p2");
}

TEST(SlotFeedTest, APartOfWhatIsNotKnownIsIgnored) {
  SlotFeed feed;
  SlotCopies part = All({Told("a", 1)});
  part.complete = false;
  feed.Take(part);
  EXPECT_EQ(feed.version(), 0u);
  feed.Take(All({Told("b", 1)}));
  part.origin = "p2";
  feed.Take(part);
  EXPECT_THAT(Names(feed.Since(0)), ElementsAre("b"));
}

TEST(SlotFeedTest, WhoMissedMoreThanIsRememberedGetsEverything) {
  SlotFeed feed;
  feed.Take(All({Told("a", 1)}));
  const uint64_t first = feed.version();
  for (int i = 0; i < 300; ++i) {
    feed.Take(All({Told("a", 1), Told("x" + std::to_string(1000 + i), 1)}));
  }
  EXPECT_TRUE(feed.Since(first).complete);
  EXPECT_THAT(Names(feed.Since(first)), ElementsAre("a", "x1299"));
  EXPECT_FALSE(feed.Since(feed.version() - 1).complete);
}

// --- Saving copies ---

class SlotCopiesTest : public SlotTableTest {
 protected:
  absl::Status Save(const SlotCopies& all) { return table_->SaveCopies(all, "r1", log_, kData); }

  LogView log_ = Log(1, 100);
};

TEST_F(SlotCopiesTest, CopiesHoldTheLogAndSurviveARestart) {
  ASSERT_THAT(Save(All({Told("c1", 20, 5, SlotKind::kConsumer), Told("r1", 90), Told("r2", 40)})), IsOk());
  EXPECT_THAT(table_->List(), SizeIs(2));  // r1 is this node
  EXPECT_EQ(table_->Floor(kData), 21u);
  fs_.Reopen();
  Open();
  const Slot copy = *table_->Get("c1");
  EXPECT_EQ(copy.origin, "p1");
  EXPECT_EQ(copy.kind, SlotKind::kConsumer);
  EXPECT_EQ(copy.state, SlotState::kInactive);
  EXPECT_EQ(copy.generation, 5u);
  EXPECT_EQ(copy.data_generation, kData);
  EXPECT_EQ(copy.confirmed_lsn, 20u);
  EXPECT_EQ(copy.created_time_ms, 1000u);
  EXPECT_EQ(table_->Floor(kData), 21u);
  EXPECT_THAT(ProvingSlots(table_->List(), kData), IsEmpty());
}

TEST_F(SlotCopiesTest, ProgressIsSavedWithTheNextSave) {
  ASSERT_THAT(Save(All({Told("r2", 40)})), IsOk());
  const uint64_t saves = table_->saves_total();
  ASSERT_THAT(Save(All({Told("r2", 40)})), IsOk());
  ASSERT_THAT(Save(All({Told("r2", 60)})), IsOk());
  ASSERT_THAT(Save(All({Told("r2", 70)})), IsOk());
  EXPECT_EQ(table_->saves_total(), saves);
  EXPECT_EQ(table_->Get("r2")->confirmed_lsn, 70u);
  EXPECT_EQ(table_->Floor(kData), 41u);  // what is saved
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->saves_total(), saves + 1);
  EXPECT_EQ(table_->Floor(kData), 71u);
}

TEST_F(SlotCopiesTest, ANewGenerationMayBeLower) {
  ASSERT_THAT(Save(All({Told("r2", 40)})), IsOk());
  ASSERT_THAT(Save(All({Told("r2", 30)})), IsOk());  // late, or wrong: within a generation nothing falls
  EXPECT_EQ(table_->Get("r2")->confirmed_lsn, 40u);
  ASSERT_THAT(Save(All({Told("r2", 30, 2)})), IsOk());
  EXPECT_EQ(table_->Floor(kData), 31u);
  EXPECT_EQ(table_->Get("r2")->generation, 2u);
}

TEST_F(SlotCopiesTest, WhatIsDroppedThereIsDroppedHere) {
  ASSERT_THAT(table_->Create("own", SlotKind::kConsumer, kData, 50), IsOk());
  ASSERT_THAT(Save(All({Told("c1", 20), Told("r2", 40)})), IsOk());
  ASSERT_THAT(Save(All({Told("r2", 40)})), IsOk());
  EXPECT_FALSE(table_->Get("c1").has_value());
  EXPECT_EQ(table_->Floor(kData), 41u);
  ASSERT_THAT(Save(All({})), IsOk());
  ASSERT_THAT(table_->List(), SizeIs(1));
  EXPECT_EQ(table_->List()[0].name, "own");
}

TEST_F(SlotCopiesTest, WhatIsInvalidatedThereHoldsNothingHereUntilItRevives) {
  ASSERT_THAT(Save(All({Told("r2", 40)})), IsOk());
  SlotCopy lost = Told("r2", 40);
  lost.invalidated = true;
  ASSERT_THAT(Save(All({lost})), IsOk());
  EXPECT_EQ(table_->Get("r2")->state, SlotState::kInvalidated);
  EXPECT_EQ(table_->Get("r2")->invalidation->cause, "lost_at_primary");
  EXPECT_EQ(table_->Floor(kData), kNoFloor);
  ASSERT_THAT(Save(All({Told("r2", 60)})), IsOk());
  EXPECT_EQ(table_->Get("r2")->state, SlotState::kInactive);
  EXPECT_EQ(table_->Floor(kData), 61u);
}

TEST_F(SlotCopiesTest, ACopyThatNeedsLogFromBeforeTheFirstRecordHoldsNothing) {
  log_ = Log(50, 100);
  ASSERT_THAT(Save(All({Told("c1", 20), Told("c2", 49)})), IsOk());
  const Slot lost = *table_->Get("c1");
  EXPECT_EQ(lost.state, SlotState::kInvalidated);
  EXPECT_EQ(*lost.invalidation, (Invalidation{"wal_removed", 100, lost.invalidation->at_time_ms, 21, 50}));
  EXPECT_EQ(table_->Floor(kData), 50u);
  // Its owner comes so far that the log will do.
  ASSERT_THAT(Save(All({Told("c1", 55), Told("c2", 55)})), IsOk());
  EXPECT_EQ(table_->Get("c1")->state, SlotState::kInactive);
}

TEST_F(SlotCopiesTest, ACopyOverALimitStaysWithoutUntilThereIsRoom) {
  limits_.max_retained_bytes = 4000;
  Open();
  ASSERT_THAT(Save(All({Told("c1", 50)})), IsOk());  // 5000 bytes behind
  ASSERT_THAT(table_->EnforceLimits(log_, kData), IsOk());
  EXPECT_EQ(table_->Get("c1")->invalidation->cause, "retained_bytes");
  const uint64_t saves = table_->saves_total();
  for (const Lsn lsn : {51, 60, 69}) {
    ASSERT_THAT(Save(All({Told("c1", lsn)})), IsOk());
    EXPECT_EQ(table_->Get("c1")->invalidation->cause, "retained_bytes");
  }
  EXPECT_EQ(table_->saves_total(), saves);
  ASSERT_THAT(Save(All({Told("c1", 70)})), IsOk());
  EXPECT_EQ(table_->Get("c1")->state, SlotState::kInactive);
  EXPECT_EQ(table_->Floor(kData), 71u);
}

TEST_F(SlotCopiesTest, ACopyAboveTheOwnLogIsNoProofThatItWasThere) {
  ASSERT_THAT(Save(All({Told("r2", 5000)})), IsOk());
  EXPECT_THAT(ProvingSlots(table_->List(), kData), IsEmpty());
  ASSERT_THAT(table_->EnforceLimits(log_, kData), IsOk());
  EXPECT_EQ(table_->Get("r2")->state, SlotState::kInactive);
}

TEST_F(SlotCopiesTest, AFullTableTakesNoMore) {
  std::vector<SlotCopy> told;
  for (size_t i = 0; i < kSlotsMax; ++i) told.push_back(Told("s" + std::to_string(1000 + i), 5));
  ASSERT_THAT(table_->Create("own", SlotKind::kConsumer, kData, 50), IsOk());
  ASSERT_THAT(Save(All(told)), IsOk());
  EXPECT_THAT(table_->List(), SizeIs(kSlotsMax));
  EXPECT_TRUE(table_->Get("own").has_value());
  EXPECT_EQ(logger_.Events("slot_copies_saved").back().fields.at("left_out"), "1");
}

// --- Slots that are served here ---

TEST_F(SlotCopiesTest, ASlotWithASessionHereIsNotOverwritten) {
  ASSERT_THAT(Save(All({Told("c1", 20, 5, SlotKind::kConsumer)})), IsOk());
  const Session session = Begin("c1");
  ASSERT_THAT(table_->NewGeneration("c1", kData, 30, SlotState::kInactive, "", true), IsOk());
  const Slot own = *table_->Get("c1");
  EXPECT_EQ(own.origin, "");
  for (const SlotCopies& told : {All({Told("c1", 80, 5, SlotKind::kConsumer)}), All({})}) {
    ASSERT_THAT(Save(told), IsOk());
    EXPECT_EQ(*table_->Get("c1"), own);
    EXPECT_TRUE(table_->HasSession(session.id));
  }
  // Its owner has gone back.
  table_->EndSession(session.id);
  ASSERT_THAT(Save(All({Told("c1", 80, 5, SlotKind::kConsumer)})), IsOk());
  EXPECT_EQ(table_->Get("c1")->origin, "p1");
  EXPECT_EQ(table_->Get("c1")->confirmed_lsn, 80u);
}

TEST_F(SlotCopiesTest, ASessionOnACopyDoesNotMakeItAProof) {
  ASSERT_THAT(Save(All({Told("r2", 5000)})), IsOk());
  Begin("r2");
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_THAT(ProvingSlots(table_->List(), kData), IsEmpty());
  ASSERT_THAT(table_->NewGeneration("r2", kData, 60, SlotState::kInactive, "", true), IsOk());
  ASSERT_THAT(ProvingSlots(table_->List(), kData), SizeIs(1));
}

TEST_F(SlotCopiesTest, AConsumersSlotThatWasMadeHereIsNotMovedByAnotherOfItsName) {
  ASSERT_THAT(table_->Create("c1", SlotKind::kConsumer, kData, 30), IsOk());
  ASSERT_THAT(Save(All({Told("c1", 80, 5, SlotKind::kConsumer)})), IsOk());
  EXPECT_EQ(table_->Get("c1")->confirmed_lsn, 30u);
  EXPECT_EQ(table_->Get("c1")->origin, "");
}

TEST_F(SlotCopiesTest, AReplicasSlotGoesWhereItsOwnerIsFurther) {
  ASSERT_THAT(table_->Create("r2", SlotKind::kReplica, kData, 30), IsOk());
  ASSERT_THAT(Save(All({Told("r2", 30)})), IsOk());
  EXPECT_EQ(table_->Get("r2")->origin, "");
  ASSERT_THAT(Save(All({Told("r2", 31)})), IsOk());
  EXPECT_EQ(table_->Get("r2")->origin, "p1");
  // One that loads a snapshot from here has a position yet to come.
  ASSERT_THAT(table_->Create("r3", SlotKind::kReplica, kData, 30), IsOk());
  ASSERT_THAT(table_->NewGeneration("r3", kData, 30, SlotState::kBootstrapping, "diverged", false), IsOk());
  ASSERT_THAT(Save(All({Told("r2", 31), Told("r3", 90)})), IsOk());
  EXPECT_EQ(table_->Get("r3")->state, SlotState::kBootstrapping);
}

TEST_F(SlotCopiesTest, ATemporarySlotIsLeftAlone) {
  uint64_t superseded = 0;
  ASSERT_THAT(table_->BeginTemporary("t", SlotKind::kConsumer, kData, 30, {1, 2}, &superseded), IsOk());
  ASSERT_THAT(Save(All({Told("t", 80)})), IsOk());
  EXPECT_TRUE(table_->Get("t")->temporary);
  EXPECT_THAT(table_->SavedSlots(kData), IsEmpty());
}

TEST_F(SlotCopiesTest, WhatIsToldIsWhatIsSaved) {
  ASSERT_THAT(table_->Create("r2", SlotKind::kReplica, kData, 10), IsOk());
  const Session session = Begin("r2");
  ASSERT_THAT(table_->Advance(AckOf(session, 20, 20, 20), 20), IsOk());
  ASSERT_THAT(table_->SavedSlots(kData), SizeIs(1));
  EXPECT_EQ(table_->SavedSlots(kData)[0].confirmed_lsn, 10u);
  ASSERT_THAT(table_->SaveIfDirty(), IsOk());
  EXPECT_EQ(table_->SavedSlots(kData)[0].confirmed_lsn, 20u);
  EXPECT_EQ(table_->SavedSlots(kData)[0].generation, table_->Get("r2")->generation);
  EXPECT_FALSE(table_->SavedSlots(kData)[0].invalidated);
  EXPECT_TRUE(table_->SavedSlots(kData + 1)[0].invalidated);  // its log is not the live one
}

// --- Promotion ---

TEST_F(SlotCopiesTest, APromotionMakesCopiesItsOwn) {
  limits_.consumer_idle_micros = 1'000'000;
  Open();
  ASSERT_THAT(Save(All({Told("ahead", 5000), Told("c1", 20, 5, SlotKind::kConsumer)})), IsOk());
  ASSERT_THAT(table_->Create("r1", SlotKind::kReplica, kData, 30), IsOk());  // this node, from when it was no replica
  clock_.Advance(2'000'000);
  const absl::StatusOr<std::vector<Slot>> lost = table_->TakeOver(2, "r1", log_, kData);
  ASSERT_THAT(lost, IsOk());
  EXPECT_THAT(*lost, IsEmpty());
  fs_.Reopen();
  Open();
  EXPECT_THAT(table_->List(), SizeIs(2));
  const Slot ahead = *table_->Get("ahead");
  EXPECT_EQ(ahead.origin, "");
  EXPECT_EQ(ahead.confirmed_lsn, 100u);  // the end of this log
  EXPECT_NE(ahead.generation, 1u);
  EXPECT_EQ(ahead.created_time_ms, 1000u);
  EXPECT_EQ(table_->Get("c1")->confirmed_lsn, 20u);
  EXPECT_NE(table_->Get("c1")->generation, 5u);
  EXPECT_EQ(table_->Floor(kData), 21u);
  EXPECT_THAT(ProvingSlots(table_->List(), kData), SizeIs(2));
}

TEST_F(SlotCopiesTest, APromotionStartsIdleTimesAgain) {
  limits_.consumer_idle_micros = 1'000'000;
  Open();
  ASSERT_THAT(Save(All({Told("c1", 20, 5, SlotKind::kConsumer)})), IsOk());
  clock_.Advance(2'000'000);
  ASSERT_THAT(table_->TakeOver(2, "r1", log_, kData), IsOk());
  ASSERT_THAT(table_->EnforceLimits(log_, kData), IsOk());
  EXPECT_EQ(table_->Get("c1")->state, SlotState::kInactive);
  clock_.Advance(1'000'001);
  ASSERT_THAT(table_->EnforceLimits(log_, kData), IsOk());
  EXPECT_EQ(table_->Get("c1")->invalidation->cause, "idle_timeout");
}

TEST_F(SlotCopiesTest, APromotionTellsWhoseLogIsNotThere) {
  ASSERT_THAT(Save(All({Told("c1", 20), Told("c2", 60)})), IsOk());
  log_ = Log(50, 100);
  const absl::StatusOr<std::vector<Slot>> lost = table_->TakeOver(2, "r1", log_, kData);
  ASSERT_THAT(lost, IsOk());
  ASSERT_THAT(*lost, SizeIs(1));
  EXPECT_EQ((*lost)[0].name, "c1");
  EXPECT_EQ((*lost)[0].invalidation->cause, "wal_removed");
  EXPECT_EQ(table_->Floor(kData), 61u);
}

TEST_F(SlotCopiesTest, WhatWasToldBeforeThePromotionIsNotTakenAfterIt) {
  ASSERT_THAT(Save(All({Told("c1", 20)})), IsOk());
  ASSERT_THAT(table_->TakeOver(2, "r1", log_, kData), IsOk());
  const Slot own = *table_->Get("c1");
  ASSERT_THAT(Save(All({Told("c1", 40)}, /*term=*/1)), IsOk());
  EXPECT_EQ(*table_->Get("c1"), own);
  // Another one was promoted behind it.
  ASSERT_THAT(Save(All({Told("c1", 40)}, /*term=*/3)), IsOk());
  EXPECT_EQ(table_->Get("c1")->origin, "p1");
}

TEST_F(SlotCopiesTest, APrimaryThatStepsDownKeepsItsSlotsAsCopies) {
  ASSERT_THAT(table_->Create("c1", SlotKind::kConsumer, kData, 30), IsOk());
  ASSERT_THAT(table_->Create("r2", SlotKind::kReplica, kData, 40), IsOk());
  ASSERT_THAT(table_->NewGeneration("r2", kData, 40, SlotState::kBootstrapping, "diverged", false), IsOk());
  const Session session = Begin("c1");
  ASSERT_THAT(table_->HandOver("p2"), IsOk());
  EXPECT_FALSE(table_->HasSession(session.id));
  EXPECT_EQ(table_->Floor(kData), 31u);
  fs_.Reopen();
  Open();
  EXPECT_EQ(table_->Get("c1")->origin, "p2");
  EXPECT_EQ(table_->Get("r2")->state, SlotState::kInactive);
  // The new primary tells: c1 went on there, r2 was dropped.
  SlotCopies told = All({Told("c1", 35, 5, SlotKind::kConsumer)}, 2);
  told.origin = "p2";
  ASSERT_THAT(Save(told), IsOk());
  ASSERT_THAT(table_->List(), SizeIs(1));
  EXPECT_EQ(table_->Get("c1")->confirmed_lsn, 35u);
}

TEST_F(SlotCopiesTest, ASlotThatANewPrimaryTookOverIsTheSameOneToTheOldOne) {
  ASSERT_THAT(table_->Create("c1", SlotKind::kConsumer, kData, 30), IsOk());
  SlotCopy taken = table_->SavedSlots(kData)[0];  // as it came to the new one, which gave it another generation
  taken.generation += 1;
  taken.confirmed_lsn = 25;
  ASSERT_THAT(Save(All({taken}, 2)), IsOk());
  EXPECT_EQ(table_->Get("c1")->origin, "p1");
  EXPECT_EQ(table_->Floor(kData), 26u);
}

TEST_F(SlotCopiesTest, ASwitchOfTheLogIsPutRightByTheNextTelling) {
  const SlotCopies told = All({Told("r2", 90), Told("r3", 20)});
  ASSERT_THAT(Save(told), IsOk());
  ASSERT_THAT(table_->SwitchDataGeneration(kData + 1, 61, 60), IsOk());
  log_ = Log(61, 100);
  ASSERT_THAT(table_->SaveCopies(told, "r1", log_, kData + 1), IsOk());
  EXPECT_EQ(table_->Get("r2")->confirmed_lsn, 90u);
  EXPECT_EQ(table_->Get("r2")->generation, 1u);
  EXPECT_EQ(table_->Get("r3")->invalidation->cause, "wal_removed");
  EXPECT_EQ(table_->Floor(kData + 1), 91u);
}

}  // namespace
}  // namespace towline::slots
