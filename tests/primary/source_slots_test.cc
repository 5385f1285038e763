// What sessions and operators do to slots: temporary ones, diverged replicas, drops, a lost table, refused requests.

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "common/error.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

using Counts = std::map<std::string, uint64_t>;

constexpr Lsn kNoFloor = std::numeric_limits<Lsn>::max();

class SourceSlotsTest : public SourceTest {
 protected:
  v1::PullStart Temporary(v1::PullStart start) const {
    start.set_temporary(true);
    return start;
  }

  // About two segments of log, and everything that may go is gone.
  void WriteAndRetain() {
    Write(32, 4000);
    FlushStore();
    Pass(2 * options_.slots_persist_micros);
  }

  // A replica at LSN 15 of another continuation of term 1, which ends here at LSN 10.
  v1::PullStart DivergedStart(const std::string& slot) {
    Write(9);
    StartTerm(2, 0xa2);  // LSN 11
    Write(9);
    v1::PullStart start = ReplicaStart(slot, 15);
    start.mutable_history()->RemoveLast();
    return start;
  }
};

// --- Temporary slots ---

TEST_F(SourceSlotsTest, ATemporarySlotHoldsTheLogForItsSessionAndNoLonger) {
  options_.planner.auto_create_slots = false;  // which is about slots that stay
  OpenNode();
  auto owner = Attach(Temporary(ConsumerStart("t", 1)));
  EXPECT_TRUE(source_->Slots().at(0).slot.temporary);
  WriteAndRetain();
  EXPECT_EQ(FirstRetained(), 1u);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(33), IsOk());
  EXPECT_EQ(slots_->Floor(1), 34u);
  EXPECT_EQ(slots_->saves_total(), 0u);
  owner->Close();
  EXPECT_TRUE(slots_->List().empty());
  WriteAndRetain();
  EXPECT_GT(FirstRetained(), 1u);
}

TEST_F(SourceSlotsTest, ATemporarySlotDoesNotOutliveTheProcess) {
  auto owner = Attach(Temporary(ReplicaStart("r1", 1)));
  Attach(ConsumerStart("c1", 1))->Close();  // a save beside it
  owner->Close();
  OpenNode();
  ASSERT_EQ(slots_->List().size(), 1u);
  EXPECT_EQ(slots_->List()[0].name, "c1");
}

TEST_F(SourceSlotsTest, ATemporaryReplicaIsNoMember) {
  Write(9);
  auto owner = Attach(Temporary(ReplicaStart("r1", 5)));
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(6, 10));
  EXPECT_TRUE(host_.attached.empty());
}

TEST_F(SourceSlotsTest, ANewerSessionOfTheProcessGoesOnWhereTheTemporarySlotStands) {
  auto old = Attach(Temporary(ConsumerStart("t", 1)));
  Write(9);
  old->Receive();
  ASSERT_THAT(old->AckAll(6), IsOk());
  v1::PullStart start = Temporary(ConsumerStart("t", 0));
  start.set_from_slot(true);
  auto next = Attach(start);
  EXPECT_EQ(next->started.from_lsn(), 7u);
  old->Receive();
  EXPECT_EQ(old->EndReason(), "superseded");
  EXPECT_THAT(old->AckAll(10), IsOk());  // too late: nobody listens
  old->Close();
  EXPECT_EQ(slots_->Floor(1), 7u);
  next->Receive();
  EXPECT_THAT(next->AckAll(10), IsOk());
  EXPECT_EQ(slots_->Floor(1), 11u);

  v1::PullStart other = start;
  other.set_process_instance(41);
  EXPECT_EQ(Ask(other).reason(), "slot_in_use");
}

TEST_F(SourceSlotsTest, NamesOfTheOtherSortAreRefused) {
  Attach(ConsumerStart("c1", 1))->Close();
  EXPECT_EQ(Ask(Temporary(ConsumerStart("c1", 1))).reason(), "slot_exists");
  EXPECT_FALSE(SlotOf("c1").temporary);
  auto owner = Attach(Temporary(ConsumerStart("t", 1)));
  EXPECT_EQ(Ask(ConsumerStart("t", 1)).reason(), "slot_in_use");
  EXPECT_EQ(Ask(Temporary(ReplicaStart("t", 1))).reason(), "slot_kind");
  EXPECT_TRUE(slots_->HasSession(owner->started.session_id()));
}

TEST_F(SourceSlotsTest, AnInvalidatedTemporarySlotHoldsAgainOnceItHasCaughtUp) {
  limits_.max_retained_bytes = 100'000;
  options_.wal_keep_bytes = 1 << 20;  // so that what it needs is still there
  OpenNode();
  auto owner = Attach(Temporary(ConsumerStart("t", 1)));
  WriteAndRetain();
  EXPECT_EQ(SlotOf("t").invalidation->cause, "retained_bytes");
  EXPECT_EQ(source_->Counters().invalidations_by_cause, (Counts{{"retained_bytes", 1}}));
  EXPECT_EQ(slots_->Floor(1), kNoFloor);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 33u);  // the session goes on
  ASSERT_THAT(owner->AckAll(33), IsOk());
  Pass(options_.slots_persist_micros);
  EXPECT_EQ(SlotOf("t").state, slots::SlotState::kActive);
  EXPECT_EQ(slots_->Floor(1), 34u);
}

TEST_F(SourceSlotsTest, ATemporarySlotCarriesNoSnapshotAndNoRewind) {
  options_.planner.replay_max_bytes = 0;
  OpenNode();
  v1::PullStart start = Temporary(DivergedStart("r1"));
  start.set_oldest_rewind_lsn(5);
  EXPECT_EQ(Ask(start).decision(), v1::RESUME_DECISION_REWIND);
  v1::FetchSnapshotRequest request;
  *request.mutable_start() = Temporary(ReplicaStart("r1", 0));
  EXPECT_EQ(Ask(request.start()).decision(), v1::RESUME_DECISION_FULL);
  EXPECT_THAT(source_->NewSnapshotSession(request, [] {}).status(), ReasonIs("invalid_start"));
  EXPECT_TRUE(slots_->List().empty());
}

// --- Diverged ---

TEST_F(SourceSlotsTest, ADivergedReplicaLosesItsSlotWhenItIsToldToLoadASnapshot) {
  Attach(ReplicaStart("r1", 1))->Close();
  const v1::PullStart start = DivergedStart("r1");
  ASSERT_THAT(source_->Explain(start, nullptr), IsOk());
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);

  const v1::PullStarted answer = Ask(start);
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_FULL);
  EXPECT_EQ(answer.reason(), "diverged");
  const slots::Slot slot = SlotOf("r1");
  EXPECT_EQ(slot.state, slots::SlotState::kInvalidated);
  EXPECT_EQ(slot.invalidation->cause, "diverged");
  EXPECT_EQ(slot.invalidation->at_lsn, 20u);
  EXPECT_EQ(slot.invalidation->needed_lsn, 2u);
  EXPECT_EQ(slots_->Floor(1), kNoFloor);
  Ask(start);
  EXPECT_EQ(source_->Counters().invalidations_by_cause, (Counts{{"diverged", 1}}));
  EXPECT_EQ(logger_.Events("slot_invalidated").size(), 1u);
  EXPECT_EQ(source_->Counters().full_total, 0u);  // it has not taken effect

  v1::FetchSnapshotRequest request;
  *request.mutable_start() = start;
  ASSERT_THAT(source_->NewSnapshotSession(request, [] {}), IsOk());
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  Ask(start);  // while it loads
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  OpenNode();
  EXPECT_EQ(source_->Counters().invalidations_by_cause, Counts());
}

TEST_F(SourceSlotsTest, ADivergedStrangerDoesNotTakeAnothersSlotAway) {
  auto owner = Attach(ReplicaStart("r1", 1));
  v1::PullStart stranger = DivergedStart("r1");
  stranger.set_process_instance(31);
  EXPECT_EQ(Ask(stranger).reason(), "diverged");
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  owner->Receive();
  EXPECT_THAT(owner->AckAll(20), IsOk());
}

TEST_F(SourceSlotsTest, ADivergedReplicasOlderSessionEnds) {
  auto old = Attach(ReplicaStart("r1", 1));
  Ask(DivergedStart("r1"));
  old->Receive();
  EXPECT_EQ(old->EndReason(), "superseded");
  Pass(options_.slots_persist_micros);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInvalidated);  // nobody holds the log again for it
}

// --- Drop, loss, refusals ---

TEST_F(SourceSlotsTest, ADropOfASlotThatHeldLogIsCounted) {
  Attach(ReplicaStart("r1", 1))->Close();
  auto owner = Attach(ReplicaStart("r2", 1));
  EXPECT_THAT(source_->DropSlot("r2", false), ReasonIs("slot_in_use"));
  EXPECT_THAT(source_->DropSlot("none", false), ReasonIs("slot_not_found"));
  EXPECT_TRUE(source_->Counters().invalidations_by_cause.empty());
  ASSERT_THAT(source_->DropSlot("r1", false), IsOk());
  ASSERT_THAT(source_->DropSlot("r2", true), IsOk());
  EXPECT_EQ(source_->Counters().invalidations_by_cause, (Counts{{"dropped", 2}}));

  Attach(ReplicaStart("r3", 1))->Close();
  Ask(DivergedStart("r3"));
  ASSERT_THAT(source_->DropSlot("r3", false), IsOk());  // it held nothing any more
  EXPECT_EQ(source_->Counters().invalidations_by_cause, (Counts{{"diverged", 1}, {"dropped", 2}}));
}

TEST_F(SourceSlotsTest, OwnersGetLostSlotsAgainEvenIfNoneAreMadeOtherwise) {
  options_.planner.auto_create_slots = false;
  fs_.SetContents("slots.a", "rubbish");
  OpenNode();
  ASSERT_TRUE(slots_->unknown());
  Attach(ReplicaStart("r1", 1))->Close();
  Attach(ConsumerStart("c1", 1))->Close();
  EXPECT_EQ(slots_->List().size(), 2u);
  ASSERT_THAT(slots_->AcceptLoss(), IsOk());
  EXPECT_EQ(Ask(ConsumerStart("c2", 1)).reason(), "slot_not_found");
}

TEST_F(SourceSlotsTest, RefusedRequestsAreCountedByReason) {
  auto owner = Attach(ConsumerStart("c1", 1));
  EXPECT_THAT(owner->AckAll(kNoFloor), ReasonIs("ack_ahead"));
  EXPECT_THAT(owner->AckAll(kNoFloor), IsOk());  // the session is over
  owner = Attach(ConsumerStart("c1", 1));
  v1::PullAck ack = owner->MakeAck(1, 1, 1);
  ack.set_slot_generation(ack.slot_generation() + 1);
  EXPECT_THAT(owner->Send(ack), ReasonIs("stale_generation"));
  Owner nameless(*source_, ConsumerStart("../c", 1));
  EXPECT_THAT(nameless.Connect(), ReasonIs("invalid_name"));
  EXPECT_EQ(source_->Counters().refused_requests,
            (Counts{{"ack_ahead", 1}, {"invalid_name", 1}, {"stale_generation", 1}}));
  EXPECT_EQ(slots_->Floor(1), 2u);
}

}  // namespace
}  // namespace towline::test
