// Tests of snapshot streams: the position, the slot that holds the log behind it, and what is counted afterwards.

#include <map>
#include <string>
#include <vector>

#include "common/error.h"
#include "tests/primary/snapshot_fixture.h"

namespace towline::test {
namespace {

using ::testing::SizeIs;
using Reasons = std::map<std::string, uint64_t>;

TEST_F(SnapshotSessionTest, SnapshotThenPullFromItsPositionCountsAsFull) {
  EXPECT_EQ(Ask(ReplicaStart("r1", 0)).decision(), v1::RESUME_DECISION_FULL);
  auto session = Open(ReplicaStart("r1", 0));
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  EXPECT_EQ(SlotOf("r1").bootstrap_reason, "new_replica");
  EXPECT_EQ(slots_->Floor(1), 32u);
  Received received;
  TakeAll(*session, &received);
  EXPECT_THAT(received.status, IsOk());
  EXPECT_EQ(received.header.position().lsn(), 31u);
  EXPECT_EQ(received.header.position().chain(), ChainAt(31));
  EXPECT_EQ(received.header.position().term(), 1u);
  EXPECT_EQ(received.header.position().term_id(), kTermId);
  EXPECT_EQ(received.header.position().cluster_id(), kCluster);
  EXPECT_EQ(received.header.history_size(), 1);
  EXPECT_EQ(received.header.reason(), "new_replica");
  EXPECT_EQ(received.header.slot_generation(), SlotOf("r1").generation);
  ASSERT_TRUE(received.end.has_value());
  EXPECT_EQ(received.end->keys(), 30u);
  EXPECT_EQ(received.end->chunks(), received.chunks.size());
  uint64_t bytes = 0;
  for (const v1::SnapshotChunk& chunk : received.chunks) bytes += chunk.data().size();
  EXPECT_EQ(received.end->bytes(), bytes);
  EXPECT_EQ(received.end->digest(), DigestOf(host_.live->state()));
  EXPECT_EQ(source_->Counters().snapshot_bytes_sent, bytes);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  EXPECT_EQ(source_->Counters().full_total, 0u);

  Pass(options_.slots_persist_micros);
  auto owner = Attach(ReplicaStart("r1", 31));  // before the transport has closed the snapshot
  EXPECT_THAT(session->end_status(), IsOk());
  session.reset();
  EXPECT_EQ(source_->Counters().superseded_sessions, 0u);
  EXPECT_EQ(PeerOf("r1").state, "bootstrapping");
  owner->Receive();
  ASSERT_THAT(owner->AckAll(31), IsOk());
  owner->Receive();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  EXPECT_EQ(SlotOf("r1").bootstrap_reason, "");
  owner->Close();
  auto again = Attach(ReplicaStart("r1", 31));  // an ordinary reconnect
  ASSERT_THAT(again->AckAll(31), IsOk());
  const ResyncCounters counters = source_->Counters();
  EXPECT_EQ(counters.by_reason, (Reasons{{"full/new_replica", 1}, {"partial/resumed", 1}}));
  EXPECT_EQ(counters.full_total, 1u);
  EXPECT_EQ(counters.partial_total, 1u);
}

TEST_F(SnapshotSessionTest, TheStateIsExactlyThatOfItsPositionWhileWritesGoOn) {
  Write(300, 20'000);
  const std::string digest = DigestOf(host_.live->state());
  auto session = Open(ReplicaStart("r1", 0));
  Write(3);  // behind the snapshot, before it is sent
  Received received;
  ASSERT_EQ(TakeOne(*session, &received), NextResult::kMessage);
  const Lsn lsn = received.header.position().lsn();
  EXPECT_EQ(lsn, 331u);
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, lsn);
  EXPECT_EQ(slots_->Floor(1), lsn + 1);  // saved before the header leaves
  while (TakeOne(*session, &received) == NextResult::kMessage) Write(2);
  ASSERT_TRUE(received.end.has_value());
  EXPECT_GT(received.chunks.size(), 4u);
  EXPECT_EQ(received.end->digest(), digest);

  const std::unique_ptr<StateStore> state = Install(received, "/copy");
  EXPECT_EQ(state->applied().lsn, lsn);
  EXPECT_EQ(state->applied().chain, received.header.position().chain());
  EXPECT_EQ(DigestOf(*state), digest);
  EXPECT_NE(DigestOf(host_.live->state()), digest);

  session.reset();
  auto owner = Attach(ReplicaStart("r1", lsn));  // the log behind it is whole
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(lsn + 1, Durable()));
}

TEST_F(SnapshotSessionTest, TheLogBehindTheSnapshotStaysUntilTheOwnerConfirms) {
  auto session = Open(ReplicaStart("r1", 0));
  Received received;
  TakeAll(*session, &received);
  session.reset();
  const auto grow = [&] {
    Write(40, 4000);
    FlushStore();
    Pass(2 * options_.slots_persist_micros);
  };
  grow();
  grow();
  EXPECT_LE(FirstRetained(), 32u);
  OpenNode();  // and across a restart of the source
  grow();
  EXPECT_LE(FirstRetained(), 32u);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);

  auto owner = Attach(ReplicaStart("r1", 31));
  owner->Receive();
  ASSERT_THAT(owner->Ack(owner->last_lsn, 0, 0), IsOk());  // it replays and has flushed nothing
  owner->Receive();
  grow();
  EXPECT_LE(FirstRetained(), 32u);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(owner->last_lsn), IsOk());
  grow();
  EXPECT_GT(FirstRetained(), 32u);
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"full/new_replica", 1}}));
}

// The stream ends right behind the ack that counts, before the slot is an ordinary one again.
TEST_F(SnapshotSessionTest, AFullResyncIsCountedOnceThoughTheStreamEndsBehindItsFirstAck) {
  Received received;
  TakeAll(*Open(ReplicaStart("r1", 0)), &received);
  auto owner = Attach(ReplicaStart("r1", 31));
  owner->Receive();
  ASSERT_THAT(owner->AckAll(31), IsOk());
  owner->Close();
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  auto again = Attach(ReplicaStart("r1", 31));
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  ASSERT_THAT(again->AckAll(31), IsOk());
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"full/new_replica", 1}, {"partial/resumed", 1}}));
}

TEST_F(SnapshotSessionTest, WithoutADecisionForFullThePlanHasChanged) {
  absl::StatusOr<std::unique_ptr<SnapshotSession>> session =
      source_->NewSnapshotSession(Request(ReplicaStart("r1", 5)), [] {});
  EXPECT_THAT(session, ReasonIs("plan_changed"));
  EXPECT_THAT(session, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(GetErrorInfo(session.status()).metadata.at("decision"), "partial");
  EXPECT_THAT(source_->NewSnapshotSession(Request(ConsumerStart("c1", 1)), [] {}), ReasonIs("plan_changed"));
  EXPECT_THAT(source_->NewSnapshotSession({}, [] {}), ReasonIs("plan_changed"));  // of no protocol version
  EXPECT_TRUE(slots_->List().empty());
}

TEST_F(SnapshotSessionTest, NoMoreThanTheLimitRunAtOnce) {
  std::vector<std::unique_ptr<SnapshotSession>> sessions;
  v1::PullStart start = ReplicaStart("r0", 0);
  for (int i = 0; i < options_.snapshots.sessions_max; ++i) {
    start.set_slot("r" + std::to_string(i));
    sessions.push_back(Open(start));
  }
  start.set_slot("r9");
  EXPECT_THAT(source_->NewSnapshotSession(Request(start), [] {}), ReasonIs("snapshot_limit"));
  EXPECT_FALSE(slots_->Get("r9").has_value());
  EXPECT_THAT(source_->NewSnapshotSession(Request(ReplicaStart("r1", 5)), [] {}), ReasonIs("snapshot_limit"));
  sessions[2]->Close();
  EXPECT_THAT(source_->NewSnapshotSession(Request(ReplicaStart("r8", 5)), [] {}), ReasonIs("plan_changed"));
  sessions.push_back(Open(start));
}

// A replica refuses what would take it back, and would ask for it again until nobody may join that snapshot any more.
TEST_F(SnapshotSessionTest, AnOwnerWithDataJoinsNoSnapshotFromBeforeItsOwnRecords) {
  auto older = Open(ReplicaStart("r0", 0));
  Write(3);
  v1::PullStart start = ReplicaStart("r1", 34);
  start.set_snapshot_requested(true);
  auto session = Open(start);
  Received received;
  TakeAll(*session, &received);
  EXPECT_EQ(received.header.reason(), "requested");
  EXPECT_EQ(received.header.position().lsn(), 34u);
  // Who holds nothing, or less, joins it.
  auto joined = Open(ReplicaStart("r2", 0));
  Received same;
  TakeAll(*joined, &same);
  EXPECT_EQ(same.header.snapshot_id(), received.header.snapshot_id());
}

TEST_F(SnapshotSessionTest, ASecondSnapshotOfTheSameProcessSupersedesTheFirst) {
  auto first = Open(ReplicaStart("r1", 0));
  Received cut;
  ASSERT_EQ(TakeOne(*first, &cut), NextResult::kMessage);
  const uint64_t generation = SlotOf("r1").generation;
  auto second = Open(ReplicaStart("r1", 0));
  EXPECT_NE(SlotOf("r1").generation, generation);
  TakeAll(*first, &cut);
  EXPECT_THAT(cut.status, ReasonIs("superseded"));
  EXPECT_FALSE(cut.end.has_value());
  first.reset();

  v1::PullStart other = ReplicaStart("r1", 0);
  other.set_process_instance(99);
  EXPECT_THAT(source_->NewSnapshotSession(Request(other), [] {}), ReasonIs("slot_in_use"));
  Received received;
  TakeAll(*second, &received);
  EXPECT_TRUE(received.end.has_value());
}

TEST_F(SnapshotSessionTest, AFailedSnapshotLeavesTheOldPositionToDecide) {
  auto session = Open(ReplicaStart("r1", 0));
  Received received;
  ASSERT_EQ(TakeOne(*session, &received), NextResult::kMessage);
  session.reset();
  EXPECT_EQ(Ask(ReplicaStart("r1", 0)).reason(), "new_replica");  // again, from nothing
  auto owner = Attach(ReplicaStart("r1", 20));                    // as if its old data had come back
  EXPECT_EQ(owner->started.from_lsn(), 21u);
  owner->Receive();
  ASSERT_THAT(owner->AckAll(31), IsOk());
  EXPECT_EQ(source_->Counters().by_reason, (Reasons{{"partial/resumed", 1}}));  // no snapshot came of it
}

TEST_F(SnapshotSessionTest, EndSessionsAndADroppedSlotEndASnapshot) {
  auto ended = Open(ReplicaStart("r1", 0));
  source_->EndSessions(MakeError(absl::StatusCode::kUnavailable, "role_changed", "bye"));
  Received received;
  TakeAll(*ended, &received);
  EXPECT_THAT(received.status, ReasonIs("role_changed"));

  auto dropped = Open(ReplicaStart("r2", 0));
  ASSERT_THAT(slots_->Drop("r2", true), IsOk());
  Pass(options_.slots_persist_micros);
  TakeAll(*dropped, &received);
  EXPECT_THAT(received.status, ReasonIs("slot_dropped"));
}

TEST_F(SnapshotSessionTest, AFailedSlotSaveServesNothing) {
  fs_.FailNext(SimCall::kSync, absl::DataLossError("injected"), "slots");
  EXPECT_THAT(source_->NewSnapshotSession(Request(ReplicaStart("r1", 0)), [] {}),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(source_->Snapshots().pool.sessions, 0u);
}

}  // namespace
}  // namespace towline::test
