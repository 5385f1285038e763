// Tests of slots on heartbeats: what a primary tells its replicas, and what a replica makes of it and passes on.

#include <string>
#include <utility>
#include <vector>

#include "tests/primary/source_fixture.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class SourceCopiesTest : public SourceTest {
 protected:
  // The slots of the heartbeats that arrived since the last call.
  static std::vector<v1::SlotCopies> Told(Owner& owner) {
    owner.Receive();
    std::vector<v1::SlotCopies> told;
    for (const v1::Heartbeat& heartbeat : std::exchange(owner.heartbeats, {})) {
      if (heartbeat.has_slots()) told.push_back(heartbeat.slots());
    }
    return told;
  }

  static std::vector<std::string> Names(const v1::SlotCopies& copies) {
    std::vector<std::string> names;
    for (const v1::SlotCopy& slot : copies.slots()) names.push_back(slot.name());
    return names;
  }

  void PassInterval() { Pass(options_.slots_persist_micros + 100'000); }

  // The node is replica r1 of p1 from now on.
  void BecomeReplica() {
    host_.view.node_id = "r1";
    host_.view.is_primary = false;
  }

  static slots::SlotCopies From(Lsn confirmed_lsn, bool complete = true) {
    return {1,
            "p1",
            complete,
            {{"c1", slots::SlotKind::kConsumer, 5, confirmed_lsn, false, 1, 2},
             {"r1", slots::SlotKind::kReplica, 6, 30, false, 1, 2}},
            {}};
  }
};

TEST_F(SourceCopiesTest, TheFirstHeartbeatTellsAllSlotsAndLaterOnesWhatIsNew) {
  ASSERT_THAT(slots_->Create("c1", slots::SlotKind::kConsumer, 1, 1), IsOk());
  auto owner = Attach(ReplicaStart("r1", 1));
  auto other = Attach([&] {
    v1::PullStart start = ReplicaStart("r2", 1);
    start.set_incarnation(21);
    start.set_process_instance(31);
    return start;
  }());
  PassInterval();
  const auto told = Told(*owner);
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_TRUE(told[0].complete());
  EXPECT_EQ(told[0].origin(), "p1");
  EXPECT_THAT(Names(told[0]), ElementsAre("c1", "r1", "r2"));
  EXPECT_EQ(told[0].slots(0).kind(), v1::SLOT_KIND_CONSUMER);
  EXPECT_EQ(told[0].slots(0).generation(), SlotOf("c1").generation);
  EXPECT_EQ(told[0].slots(0).confirmed_lsn(), 1u);
  EXPECT_EQ(told[0].slots(0).created_time_ms(), SlotOf("c1").created_time_ms);

  PassInterval();
  EXPECT_THAT(Told(*owner), IsEmpty());
  Write(5);
  Told(*other);
  ASSERT_THAT(other->AckAll(6), IsOk());
  PassInterval();
  PassInterval();
  const auto news = Told(*owner);
  ASSERT_THAT(news, SizeIs(1));
  EXPECT_FALSE(news[0].complete());
  EXPECT_THAT(Names(news[0]), ElementsAre("r2"));
  EXPECT_EQ(news[0].slots(0).confirmed_lsn(), 6u);

  ASSERT_THAT(source_->DropSlot("c1", false), IsOk());
  PassInterval();
  const auto dropped = Told(*owner);
  ASSERT_THAT(dropped, SizeIs(1));
  EXPECT_THAT(dropped[0].dropped(), ElementsAre("c1"));
}

TEST_F(SourceCopiesTest, OnlySavedValuesAreTold) {
  auto owner = Attach(ReplicaStart("r1", 1));
  PassInterval();
  Told(*owner);
  Write(5);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(6), IsOk());
  for (int i = 0; i < 60; ++i) {
    Pass(50'000);
    for (const v1::SlotCopies& told : Told(*owner)) {
      for (const v1::SlotCopy& slot : told.slots()) EXPECT_LE(slot.confirmed_lsn() + 1, slots_->Floor(1));
    }
  }
}

TEST_F(SourceCopiesTest, ConsumersAndTemporaryReplicasAreToldOfNoSlots) {
  auto consumer = Attach(ConsumerStart("c1", 1));
  v1::PullStart start = ReplicaStart("t1", 1);
  start.set_temporary(true);
  auto temporary = Attach(start);
  auto replica = Attach([&] {
    v1::PullStart other = ReplicaStart("r2", 1);
    other.set_incarnation(21);
    return other;
  }());
  PassInterval();
  EXPECT_THAT(Told(*consumer), IsEmpty());
  EXPECT_THAT(Told(*temporary), IsEmpty());
  const auto told = Told(*replica);
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_THAT(Names(told[0]), ElementsAre("c1", "r2"));
}

TEST_F(SourceCopiesTest, AReplicaKeepsTheLogForCopiesAndPassesThemOn) {
  BecomeReplica();
  Write(32, 4000);
  FlushStore();
  source_->ForwardSlots(From(2));
  auto below = Attach(ReplicaStart("r9", 33));
  PassInterval();
  EXPECT_EQ(SlotOf("c1").origin, "p1");
  EXPECT_FALSE(slots_->Get("r1").has_value());
  EXPECT_EQ(FirstRetained(), 1u);
  ASSERT_THAT(source_->Peers(), SizeIs(1));  // c1 is nobody that this node serves
  EXPECT_EQ(source_->Peers()[0].slot, "r9");

  source_->ForwardHeartbeat({1, 33, 33, clock_.MonotonicMicros()});
  const auto told = Told(*below);
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_TRUE(told[0].complete());
  EXPECT_EQ(told[0].origin(), "p1");
  EXPECT_THAT(Names(told[0]), ElementsAre("c1", "r1"));  // not r9, which is this node's affair

  slots::SlotCopies news = From(33, /*complete=*/false);
  news.slots.pop_back();
  source_->ForwardSlots(news);
  source_->ForwardHeartbeat({2, 33, 33, clock_.MonotonicMicros()});
  ASSERT_THAT(Told(*below), SizeIs(1));
  ASSERT_THAT(below->AckAll(33), IsOk());
  Pass(3 * options_.slots_persist_micros);
  EXPECT_GT(FirstRetained(), 1u);
  EXPECT_EQ(SlotOf("c1").confirmed_lsn, 33u);
}

TEST_F(SourceCopiesTest, ASessionOnACopyGetsASlotThatIsServedHere) {
  BecomeReplica();
  Write(9);
  source_->ForwardSlots(From(4));
  PassInterval();
  v1::PullStart start = ConsumerStart("c1", 0);
  start.set_cluster_id(kCluster);
  start.set_from_slot(true);
  auto owner = Attach(start);
  EXPECT_EQ(owner->started.from_lsn(), 5u);
  EXPECT_EQ(owner->started.slot_generation(), SlotOf("c1").generation);
  EXPECT_NE(SlotOf("c1").generation, 5u);
  EXPECT_EQ(SlotOf("c1").origin, "");
  owner->Receive();
  ASSERT_THAT(owner->AckAll(10), IsOk());
  source_->ForwardSlots(From(6));
  PassInterval();
  EXPECT_EQ(SlotOf("c1").confirmed_lsn, 10u);
}

TEST_F(SourceCopiesTest, APromotedNodeServesWhatItHadCopiesOf) {
  BecomeReplica();
  Write(9);
  source_->ForwardSlots(From(4));
  PassInterval();
  const auto lost = source_->TakeOverSlots(2);
  ASSERT_THAT(lost, IsOk());
  EXPECT_THAT(*lost, IsEmpty());
  PassInterval();  // with what was told before
  EXPECT_EQ(SlotOf("c1").origin, "");
  host_.view.is_primary = true;
  StartTerm(2, 0xa2);
  auto owner = Attach(ReplicaStart("r2", 5));
  PassInterval();
  const auto told = Told(*owner);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().origin(), "r1");
  EXPECT_EQ(source_->Explain(ConsumerStart("c1", 4), nullptr)->decision(), v1::RESUME_DECISION_PARTIAL);
}

}  // namespace
}  // namespace towline::test
