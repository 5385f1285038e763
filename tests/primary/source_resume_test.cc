// Tests of what a connection does to its slot and to the counters.

#include <map>
#include <string>

#include "common/error.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

using ::testing::SizeIs;
using Reasons = std::map<std::string, uint64_t>;

class SourceResumeTest : public SourceTest {
 protected:
  // A stream that acknowledges everything, and ends.
  void StreamAll(const v1::PullStart& start) {
    auto owner = Attach(start);
    owner->Receive();
    ASSERT_THAT(owner->AckAll(owner->last_lsn), IsOk());
    owner->Receive();
  }

  // The log below `lsn` is gone, but for what shares a segment with it.
  void LoseLogBelow(Lsn lsn) {
    while (FirstRetained() < lsn) {
      Write(20, 4000);
      FlushStore();
      Pass(options_.slots_persist_micros);
    }
  }
};

TEST_F(SourceResumeTest, ExplainKnowsThatTheSlotIsInUse) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 5));
  v1::PullStart other = ReplicaStart("r1", 5);
  other.set_process_instance(other.process_instance() + 1);
  const auto explained = source_->Explain(other, nullptr);
  ASSERT_THAT(explained, IsOk());
  EXPECT_EQ(explained->reason(), "slot_in_use");
  EXPECT_EQ(explained->decision(), v1::RESUME_DECISION_REFUSE);
  EXPECT_EQ(Ask(other).reason(), "slot_in_use") << "and that is what happens";
  EXPECT_EQ(source_->Explain(ReplicaStart("r1", 5), nullptr)->reason(), "resumed") << "the process itself may";
  EXPECT_EQ(source_->Explain(*source_->StartOfSlotOwner("r1"), nullptr)->reason(), "resumed");
}

TEST_F(SourceResumeTest, OwnersOfAnotherVersionAreRefusedEachByName) {
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_protocol_version(9);
  Ask(start);
  Ask(start);
  start.set_slot("r2");
  Ask(start);
  start.set_slot("c1");
  start.set_kind(v1::SLOT_KIND_CONSUMER);
  Ask(start);
  start.set_slot("No name");  // what cannot be a name is nobody's
  EXPECT_EQ(Ask(start).reason(), "protocol_version");
  const ResyncCounters counters = source_->Counters();
  EXPECT_EQ(counters.by_reason, (Reasons{{"refuse/protocol_version", 2}}));
  EXPECT_EQ(counters.consumers_by_reason, (Reasons{{"refuse/protocol_version", 2}}))
      << "c1, and a consumer without name";
}

TEST_F(SourceResumeTest, ADecisionCountsWithItsFirstAckAndOnce) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 5));
  owner->Receive();
  EXPECT_EQ(source_->Counters().partial_total, 0u);
  ASSERT_THAT(owner->AckAll(6), IsOk());
  ASSERT_THAT(owner->AckAll(10), IsOk());
  EXPECT_EQ(source_->Counters().partial_total, 1u);
  owner->Close();
  for (int i = 0; i < 5; ++i) Attach(ReplicaStart("r1", 10));  // polls without an ack are no resyncs
  EXPECT_EQ(source_->Counters().partial_total, 1u);
  StreamAll(ReplicaStart("r1", 10));
  const ResyncCounters counters = source_->Counters();
  EXPECT_EQ(counters.partial_total, 2u);
  EXPECT_EQ(counters.full_total + counters.rewind_total + counters.refused_total, 0u);
  EXPECT_EQ(counters.by_reason, (Reasons{{"partial/resumed", 2}}));
}

TEST_F(SourceResumeTest, ARefusalCountsOnceUntilItsDecisionChanges) {
  v1::PullStart other = ReplicaStart("r1", 1);
  other.set_cluster_id("ffffffffffffffffffffffff");
  for (int i = 0; i < 5; ++i) Ask(other);
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"refuse/cluster_mismatch", 1}}));
  Attach(ReplicaStart("r1", 1));
  Ask(other);
  v1::PullStart stale = ReplicaStart("r2", 1);
  stale.set_promised_term(7);
  Ask(stale);
  const ResyncCounters counters = source_->Counters();
  EXPECT_EQ(counters.by_reason, (Reasons{{"refuse/cluster_mismatch", 2}, {"refuse/stale_primary", 1}}));
  EXPECT_EQ(counters.refused_total, 3u);
}

TEST_F(SourceResumeTest, RetryAfterIsNoRefusal) {
  host_.view.starting = true;
  const v1::PullStarted answer = Ask(ReplicaStart("r1", 1));
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_RETRY_AFTER);
  EXPECT_GT(answer.retry_after_ms(), 0u);
  EXPECT_EQ(source_->Counters().refused_total, 0u);
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"retry_after/starting", 1}}));
  EXPECT_TRUE(slots_->List().empty());
}

TEST_F(SourceResumeTest, BetweenTwoGenerationsEveryoneWaits) {
  host_.view.data_generation = 2;
  EXPECT_EQ(Ask(ReplicaStart("r1", 1)).reason(), "starting");
  host_.live.reset();
  EXPECT_EQ(Ask(ReplicaStart("r1", 0)).reason(), "starting");
  Tick();
}

TEST_F(SourceResumeTest, AFullDecisionTouchesNoSlot) {
  options_.planner.replay_max_bytes = 1000;
  OpenNode();
  Write(20);
  const v1::PullStarted answer = Ask(ReplicaStart("r1", 0));
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_FULL);
  EXPECT_EQ(answer.reason(), "new_replica");
  EXPECT_EQ(answer.session_id(), 0u);
  EXPECT_TRUE(slots_->List().empty());
  EXPECT_TRUE(source_->Counters().by_reason.empty());
  EXPECT_EQ(logger_.Events("resync_decision").back().fields.at("decision"), "full");
}

TEST_F(SourceResumeTest, AnEmptyReplicaReplaysASmallLog) {
  Write(20);
  StreamAll(ReplicaStart("r1", 0));
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"partial/new_replica", 1}}));
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, 21u);
}

// Whoever lost its disk comes back with another incarnation and is served from where it is, never from where its slot
// was.
TEST_F(SourceResumeTest, AWipedReplicaStartsANewGenerationAtItsOwnPosition) {
  Write(20);
  StreamAll(ReplicaStart("r1", 0));
  const slots::Slot before = SlotOf("r1");
  v1::PullStart start = ReplicaStart("r1", 0);
  start.set_incarnation(21);
  auto owner = Attach(start);
  EXPECT_EQ(owner->started.from_lsn(), 1u);
  const slots::Slot after = SlotOf("r1");
  EXPECT_NE(after.generation, before.generation);
  EXPECT_EQ(after.confirmed_lsn, 0u);
  EXPECT_EQ(after.owner_incarnation, 21u);
  EXPECT_EQ(slots_->Floor(1), 1u);  // saved before the first record left
  EXPECT_EQ(owner->started.slot_generation(), after.generation);
  owner->Receive();
  EXPECT_THAT(owner->AckAll(21), IsOk());
}

TEST_F(SourceResumeTest, AnotherIncarnationAtTheSamePositionIsAnotherLifeOfTheSlot) {
  Write(20);
  StreamAll(ReplicaStart("r1", 21));
  const slots::Slot before = SlotOf("r1");
  v1::PullStart start = ReplicaStart("r1", 21);
  start.set_incarnation(21);
  StreamAll(start);
  EXPECT_NE(SlotOf("r1").generation, before.generation);
}

TEST_F(SourceResumeTest, APositionBelowTheSlotsMovesItDownInANewGeneration) {
  Write(20);
  StreamAll(ReplicaStart("r1", 0));
  Pass(options_.slots_persist_micros);
  EXPECT_EQ(slots_->Floor(1), 22u);
  const uint64_t generation = SlotOf("r1").generation;
  auto owner = Attach(ReplicaStart("r1", 7));
  EXPECT_EQ(owner->started.from_lsn(), 8u);
  EXPECT_NE(SlotOf("r1").generation, generation);
  EXPECT_EQ(slots_->Floor(1), 8u);
}

TEST_F(SourceResumeTest, ASlotOfAnotherDataGenerationStartsANewOne) {
  ASSERT_THAT(slots_->Create("r1", slots::SlotKind::kReplica, 9, 1), IsOk());
  const uint64_t generation = SlotOf("r1").generation;
  Attach(ReplicaStart("r1", 1));
  EXPECT_NE(SlotOf("r1").generation, generation);
  EXPECT_EQ(SlotOf("r1").data_generation, 1u);
}

TEST_F(SourceResumeTest, ASlotSurvivesARestartWithItsOwner) {
  Write(20);
  StreamAll(ReplicaStart("r1", 0));
  Pass(options_.slots_persist_micros);
  const slots::Slot before = SlotOf("r1");
  OpenNode();
  StreamAll(ReplicaStart("r1", 21));
  EXPECT_EQ(SlotOf("r1").generation, before.generation);
}

TEST_F(SourceResumeTest, AnInvalidatedSlotRevivesWhenItsLogIsStillThere) {
  limits_.consumer_idle_micros = 1'000'000;
  OpenNode();
  Write(9);
  Attach(ConsumerStart("c1", 5))->Close();
  Pass(2'500'000);
  ASSERT_EQ(SlotOf("c1").state, slots::SlotState::kInvalidated);
  EXPECT_EQ(source_->Counters().invalidations_by_cause, (Reasons{{"idle_timeout", 1}}));
  EXPECT_EQ(logger_.Events("slot_invalidated").size(), 1u);

  auto owner = Attach(ConsumerStart("c1", 8));
  EXPECT_EQ(owner->started.reason(), "revived");
  EXPECT_EQ(SlotOf("c1").state, slots::SlotState::kActive);
  EXPECT_FALSE(SlotOf("c1").invalidation.has_value());
  EXPECT_EQ(slots_->Floor(1), 9u);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(10), IsOk());
  EXPECT_EQ(source_->Counters().consumers_by_reason, (Reasons{{"partial/revived", 1}}));
}

TEST_F(SourceResumeTest, AnInvalidatedSlotWithoutItsLogMeansFullForItsOwnCause) {
  limits_.max_retained_bytes = 100'000;
  OpenNode();
  Attach(ReplicaStart("r1", 1))->Close();
  Attach(ConsumerStart("c1", 1))->Close();
  LoseLogBelow(10);
  ASSERT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);
  EXPECT_EQ(SlotOf("r1").invalidation->cause, "retained_bytes");
  EXPECT_EQ(source_->Counters().invalidations_by_cause, (Reasons{{"retained_bytes", 2}}));

  v1::PullStarted answer = Ask(ReplicaStart("r1", 1));
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_FULL);
  EXPECT_EQ(answer.reason(), "retained_bytes");
  answer = Ask(ConsumerStart("c1", 1));
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_REFUSE);
  EXPECT_EQ(answer.reason(), "retained_bytes");
  EXPECT_EQ(answer.first_retained_lsn(), FirstRetained());
  auto owner = Attach(ConsumerStart("c1", FirstRetained() + 1));  // it restarts explicitly
  EXPECT_EQ(owner->started.reason(), "revived");
  Pass(options_.slots_persist_micros);
  EXPECT_EQ(SlotOf("c1").state, slots::SlotState::kActive);  // and is not invalidated for what it gave up
}

// A record that cannot be read ends the stream once; then its owner takes a snapshot instead of asking for ever.
TEST_F(SourceResumeTest, ADamagedRecordAheadMeansFull) {
  spool_options_.tail_cache_bytes = 0;
  OpenNode();
  Write(40, 4000);
  Attach(ReplicaStart("r1", 1))->Close();
  for (const auto& [path, contents] : fs_.AllContents()) {
    const size_t at = contents.find("key-9");
    if (at != std::string::npos) fs_.FlipBit(path, 8 * (at + 100));
  }
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "wal_damaged");
  EXPECT_LT(owner->last_lsn, 9u);
  EXPECT_EQ(Ask(ReplicaStart("r1", 1)).reason(), "wal_damaged");
  EXPECT_EQ(Ask(ReplicaStart("r1", 1)).decision(), v1::RESUME_DECISION_FULL);
  EXPECT_EQ(Ask(ReplicaStart("r2", 0)).decision(), v1::RESUME_DECISION_FULL);
  EXPECT_EQ(Ask(ReplicaStart("r3", 20)).decision(), v1::RESUME_DECISION_PARTIAL);
  EXPECT_EQ(logger_.Events("wal_damaged").size(), 1u);
}

TEST_F(SourceResumeTest, ADivergedReplicaWithARewindPointHoldsTheLogFromTheCommonPoint) {
  Write(9);
  StartTerm(2, 0xa2);  // LSN 11
  Write(9);
  v1::PullStart start = ReplicaStart("r1", 15);
  start.mutable_history()->RemoveLast();  // it went on in term 1
  start.set_oldest_rewind_lsn(5);
  const v1::PullStarted answer = Ask(start);
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_REWIND);
  EXPECT_TRUE(answer.has_common_chain());
  EXPECT_EQ(answer.common_lsn(), 10u);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kRewinding);
  EXPECT_EQ(slots_->Floor(1), 11u);
  EXPECT_EQ(source_->Counters().rewind_total, 0u);

  auto owner = Attach(ReplicaStart("r1", 10));
  owner->Receive();
  ASSERT_THAT(owner->AckAll(20), IsOk());
  owner->Receive();
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"rewind/diverged", 1}}));
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
}

TEST_F(SourceResumeTest, AMemberThatHoldsMoreThanWeDoStopsThePrimary) {
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_lsn(99);
  const v1::PullStarted answer = Ask(start);
  EXPECT_EQ(answer.reason(), "replica_ahead");
  ASSERT_THAT(host_.stale, SizeIs(1));
  EXPECT_EQ(host_.stale[0].first, "replica_ahead");
}

TEST_F(SourceResumeTest, ExplainHasNoEffect) {
  Write(20, 1000);
  uint64_t bytes = 0;
  absl::StatusOr<v1::PullStarted> answer = source_->Explain(ReplicaStart("r1", 6), &bytes);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->decision(), v1::RESUME_DECISION_PARTIAL);
  EXPECT_EQ(answer->from_lsn(), 7u);
  EXPECT_EQ(answer->session_id(), 0u);
  EXPECT_NEAR(static_cast<double>(bytes), 15 * 1080, 1500);

  v1::PullStart start = ReplicaStart("r1", 6);
  start.set_lsn(99);
  ASSERT_THAT(source_->Explain(start, nullptr), IsOk());
  options_.planner.replay_max_bytes = 1000;
  OpenNode();
  answer = source_->Explain(ReplicaStart("r1", 0), &bytes);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->decision(), v1::RESUME_DECISION_FULL);
  EXPECT_EQ(bytes, host_.live->state().store().Stats().disk_bytes);

  EXPECT_TRUE(slots_->List().empty());
  EXPECT_TRUE(host_.stale.empty());
  EXPECT_TRUE(host_.attached.empty());
  EXPECT_TRUE(source_->Counters().by_reason.empty());
  EXPECT_TRUE(logger_.Events("resync_decision").empty());
}

TEST_F(SourceResumeTest, AFailedSlotSaveServesNothing) {
  fs_.FailNext(SimCall::kSync, absl::DataLossError("injected"), "slots");
  Owner owner(*source_, ReplicaStart("r1", 1));
  EXPECT_THAT(owner.Connect(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_TRUE(owner.ended);
  EXPECT_TRUE(slots_->List().empty());

  Attach(ReplicaStart("r1", 1))->Close();
  fs_.FailNext(SimCall::kSync, absl::DataLossError("injected"), "slots");
  Owner wiped(*source_, ReplicaStart("r1", 0));
  EXPECT_THAT(wiped.Connect(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);  // its session was given up
}

}  // namespace
}  // namespace towline::test
