// Tests of Pull streams end to end: start, records, credit, heartbeats, acks, supersession.

#include <limits>
#include <string>

#include "common/error.h"
#include "tests/primary/source_fixture.h"
#include "wal/frame.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

class PullSessionTest : public SourceTest {};

TEST_F(PullSessionTest, HandshakeThenEveryRecordByteForByte) {
  Write(20);
  auto owner = Attach(ReplicaStart("r1", 0));
  EXPECT_EQ(owner->started.reason(), "new_replica");
  EXPECT_EQ(owner->started.cluster_id(), kCluster);
  EXPECT_EQ(owner->started.node_id(), "p1");
  EXPECT_EQ(owner->started.term(), 1u);
  EXPECT_EQ(owner->started.history_size(), 1);
  EXPECT_EQ(owner->started.from_lsn(), 1u);
  EXPECT_EQ(owner->started.first_retained_lsn(), 1u);
  EXPECT_EQ(owner->started.durable_lsn(), 21u);
  EXPECT_NE(owner->started.session_id(), 0u);
  EXPECT_EQ(owner->started.slot_generation(), SlotOf("r1").generation);

  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(1, 21));
  ASSERT_EQ(owner->batches.size(), 1u);
  EXPECT_EQ(owner->batches[0].chain_after(), ChainAt(21));
  EXPECT_EQ(owner->batches[0].fragment_total(), 0u);
  EXPECT_FALSE(owner->ended);

  Write(1);
  EXPECT_EQ(owner->wakes, 1);
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(1, 22));
  ASSERT_EQ(logger_.Events("resync_decision").size(), 1u);
  const auto fields = logger_.Events("resync_decision")[0].fields;
  EXPECT_EQ(fields.at("node"), "r1");
  EXPECT_EQ(fields.at("decision"), "partial");
  EXPECT_EQ(fields.at("reason"), "new_replica");
  EXPECT_THAT(fields.at("numbers"), ::testing::HasSubstr("durable_lsn=21"));
}

TEST_F(PullSessionTest, AWakeOfASessionThatHasRecordsToSendIsNotNeeded) {
  Write(5);
  auto owner = Attach(ReplicaStart("r1", 0));
  Write(5);  // it has not come to the tail yet
  EXPECT_EQ(owner->wakes, 0);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 11u);
}

TEST_F(PullSessionTest, AMemberIsAnnouncedWhenItStreams) {
  Attach(ReplicaStart("r1", 1));
  Attach(ConsumerStart("c1", 1));
  Ask(ReplicaStart("p1", 1));  // refused
  EXPECT_THAT(host_.attached, ElementsAre(MemberInfo{"r1", 20, "r1:7700", true}));
}

TEST_F(PullSessionTest, AcksOfReplicasThatComeToStayAreTold) {
  Write(5);
  auto owner = Attach(ReplicaStart("r1", 1));
  auto consumer = Attach(ConsumerStart("c1", 1));
  v1::PullStart start = ReplicaStart("t1", 1);
  start.set_temporary(true);
  auto temporary = Attach(start);
  for (Owner* each : {owner.get(), consumer.get(), temporary.get()}) {
    each->Receive();
    ASSERT_THAT(each->AckAll(4), IsOk());
  }
  ASSERT_THAT(host_.acks, SizeIs(1));
  EXPECT_EQ(host_.acks[0].node_id, "r1");
  EXPECT_EQ(host_.acks[0].incarnation, 20u);
  EXPECT_EQ(host_.acks[0].term, host_.view.term);
  EXPECT_EQ(host_.acks[0].flushed_lsn, 4u);
  consumer->Close();
  temporary->Close();
  EXPECT_THAT(host_.gone, SizeIs(0));
  owner->Close();
  EXPECT_THAT(host_.gone, ElementsAre("r1"));
}

TEST_F(PullSessionTest, CreditIsOverdrawnByOneRecordAtMost) {
  Write(10, 1000);
  const uint64_t record = Shipped(2, 2).size();
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_credit_bytes(2 * record + 1);
  auto owner = Attach(start);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 4u);  // the third record overdraws
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 4u);
  const int wakes = owner->wakes;
  ASSERT_THAT(owner->Grant(3 * record), IsOk());  // covers what is out, and no more
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 4u);
  ASSERT_THAT(owner->Grant(3 * record + 1), IsOk());
  EXPECT_GT(owner->wakes, wakes);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 5u);
  ASSERT_THAT(owner->Grant(1), IsOk());  // cumulative: a lower value takes nothing back
  ASSERT_THAT(owner->Grant(uint64_t{1} << 40), IsOk());
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(2, 11));
}

TEST_F(PullSessionTest, MessagesStayWithinTheirLimit) {
  options_.batch_bytes_max = 4000;
  OpenNode();
  Write(20, 1500);
  auto owner = Attach(ReplicaStart("r1", 0));
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(1, 21));
  EXPECT_THAT(owner->batch_sizes, ::testing::Each(::testing::Le(4000u)));
  EXPECT_EQ(source_->Counters().record_bytes_sent, owner->frames.size());
}

TEST_F(PullSessionTest, ALargeRecordComesInFragments) {
  Write(1);
  Write(1, 3 << 20);
  Write(1);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  EXPECT_EQ(owner->frames, Shipped(2, 4));
  const uint64_t total = Shipped(3, 3).size();
  uint64_t offset = 0;
  int fragments = 0;
  for (size_t i = 0; i < owner->batches.size(); ++i) {
    const v1::FrameBatch& batch = owner->batches[i];
    EXPECT_LE(owner->batch_sizes[i], options_.batch_bytes_max);
    if (batch.fragment_total() == 0) continue;
    ++fragments;
    EXPECT_EQ(batch.first_lsn(), 3u);
    EXPECT_EQ(batch.last_lsn(), 3u);
    EXPECT_EQ(batch.chain_after(), ChainAt(3));
    EXPECT_EQ(batch.fragment_total(), total);
    EXPECT_EQ(batch.fragment_offset(), offset);
    offset += owner->batch_sizes[i];
  }
  EXPECT_EQ(fragments, 4);
  EXPECT_EQ(offset, total);
  EXPECT_EQ(source_->Counters().record_bytes_sent, owner->frames.size());
}

TEST_F(PullSessionTest, AFragmentedRecordCountsAsSentWithItsLastPiece) {
  Write(1, 3 << 20);
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_credit_bytes(1);  // one record may overdraw, with all its pieces
  auto owner = Attach(start);
  ASSERT_EQ(owner->ReceiveOne(), NextResult::kMessage);
  EXPECT_EQ(PeerOf("r1").sent_lsn, 1u);
  EXPECT_THAT(owner->AckAll(2), ReasonIs("ack_ahead"));

  owner = Attach(start);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 2u);
  EXPECT_THAT(owner->AckAll(2), IsOk());
}

TEST_F(PullSessionTest, AConsumerGetsDecodedRecords) {
  Write(3);
  auto owner = Attach(ConsumerStart("c1", 0));
  EXPECT_EQ(owner->started.reason(), "new_consumer");
  owner->Receive();
  ASSERT_THAT(owner->records, SizeIs(4));
  EXPECT_EQ(owner->records[0].change().term_start().term_id(), kTermId);
  EXPECT_EQ(owner->records[2].lsn(), 3u);
  EXPECT_EQ(owner->records[2].term(), 1u);
  EXPECT_EQ(owner->records[2].chain(), ChainAt(3));
  EXPECT_EQ(owner->records[2].change().batch().operations(0).put().key(), "key-3");
  EXPECT_GT(owner->records[2].commit_time_us(), owner->records[1].commit_time_us());
  EXPECT_TRUE(owner->batches.empty());
}

TEST_F(PullSessionTest, AConsumerGoesOnBehindItsSlot) {
  Write(9);
  v1::PullStart start = ConsumerStart("c1", 0);
  start.set_from_slot(true);
  auto owner = Attach(start);
  EXPECT_EQ(owner->started.from_lsn(), 11u);  // a new slot begins at the end
  Write(4);
  owner->Receive();
  EXPECT_EQ(owner->last_lsn, 14u);
  ASSERT_THAT(owner->AckAll(12), IsOk());
  owner->Close();
  owner = Attach(start);
  EXPECT_EQ(owner->started.from_lsn(), 13u);
  EXPECT_EQ(source_->Counters().consumers_by_reason, (std::map<std::string, uint64_t>{{"partial/resumed", 1}}));
  EXPECT_EQ(source_->Counters().partial_total, 0u);  // consumers are counted apart
}

TEST_F(PullSessionTest, AnExplicitStartOfAConsumerIsNoAck) {
  Write(19);
  auto owner = Attach(ConsumerStart("c1", 5));
  owner->Close();
  owner = Attach(ConsumerStart("c1", 15));  // looks at something newer
  owner->Close();
  EXPECT_EQ(SlotOf("c1").confirmed_lsn, 5u);
  v1::PullStart start = ConsumerStart("c1", 0);
  start.set_from_slot(true);
  EXPECT_EQ(Attach(start)->started.from_lsn(), 6u);
}

TEST_F(PullSessionTest, HeartbeatsAreSentOncePerSessionAndNeverStarved) {
  Write(3, 100'000);
  options_.batch_bytes_max = 1000;
  OpenNode();
  auto owner = Attach(ReplicaStart("r1", 1));
  Tick();
  EXPECT_GT(owner->wakes, 0);
  for (int i = 0; i < 3; ++i) owner->ReceiveOne();  // hundreds of fragments are due
  ASSERT_THAT(owner->heartbeats, SizeIs(1));
  EXPECT_EQ(owner->heartbeats[0].sequence(), 1u);
  EXPECT_EQ(owner->heartbeats[0].durable_lsn(), 4u);
  EXPECT_GT(owner->heartbeats[0].behind_bytes(), 200'000u);
  Tick();  // not due yet
  owner->Receive();
  EXPECT_THAT(owner->heartbeats, SizeIs(1));

  clock_.Advance(options_.heartbeat_micros);
  Tick();
  clock_.Advance(options_.heartbeat_micros);
  Tick();
  owner->Receive();
  ASSERT_THAT(owner->heartbeats, SizeIs(2));  // the newest only
  EXPECT_EQ(owner->heartbeats[1].sequence(), 3u);
  EXPECT_EQ(owner->heartbeats[1].committed_lsn(), 4u);
  EXPECT_EQ(owner->heartbeats[1].behind_bytes(), 0u);
}

TEST_F(PullSessionTest, AReplicaForwardsThePrimarysHeartbeats) {
  host_.view.is_primary = false;
  auto owner = Attach(ReplicaStart("r2", 1));
  Pass(1'000'000);
  owner->Receive();
  EXPECT_THAT(owner->heartbeats, SizeIs(0));
  source_->ForwardHeartbeat({41, 900, 800, clock_.MonotonicMicros()});
  EXPECT_GT(owner->wakes, 0);
  owner->Receive();
  ASSERT_THAT(owner->heartbeats, SizeIs(1));
  EXPECT_EQ(owner->heartbeats[0].sequence(), 41u);
  EXPECT_EQ(owner->heartbeats[0].durable_lsn(), 900u);
  EXPECT_EQ(owner->heartbeats[0].committed_lsn(), 800u);
  source_->ForwardHeartbeat({1, 905, 905, clock_.MonotonicMicros()});  // of a new primary, which counts from 1
  owner->Receive();
  EXPECT_THAT(owner->heartbeats, SizeIs(2));
}

TEST_F(PullSessionTest, AcksMoveSlotAndStatus) {
  Write(9);
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  ASSERT_THAT(owner->Ack(9, 7, 5), IsOk());
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, 7u);
  const PeerStatus peer = PeerOf("r1");
  EXPECT_EQ(peer.node_id, "r1");
  EXPECT_EQ(peer.state, "catching_up");
  EXPECT_EQ(peer.sent_lsn, 10u);
  EXPECT_EQ(peer.received_lsn, 9u);
  EXPECT_EQ(peer.flushed_lsn, 7u);
  EXPECT_EQ(peer.applied_lsn, 5u);
  EXPECT_EQ(peer.stages.back().records, 5u);
  EXPECT_GT(peer.stages.back().bytes, 0u);
  ASSERT_THAT(owner->AckAll(10), IsOk());
  EXPECT_EQ(PeerOf("r1").state, "streaming");
  EXPECT_EQ(PeerOf("r1").stages.back().records, 0u);
  EXPECT_EQ(PeerOf("r1").stages.back().bytes, 0u);
  owner->Close();
  EXPECT_EQ(PeerOf("r1").state, "disconnected");
  EXPECT_FALSE(PeerOf("r1").stages.back().seconds.has_value());
}

// Each forged ack ends the session with its own error and leaves the slot as it was.
TEST_F(PullSessionTest, ForgedAcksEndTheSession) {
  Write(9);
  const auto forge = [](void (*change)(v1::PullAck*)) { return change; };
  const std::vector<std::pair<const char*, void (*)(v1::PullAck*)>> cases = {
      {"stale_session", forge([](v1::PullAck* ack) { ack->set_session_id(ack->session_id() ^ 1); })},
      {"stale_generation", forge([](v1::PullAck* ack) { ack->set_slot_generation(ack->slot_generation() ^ 1); })},
      {"stale_term", forge([](v1::PullAck* ack) { ack->set_term(0); })},
      {"ack_ahead", forge([](v1::PullAck* ack) { ack->set_received_lsn(11); })},
      {"ack_ahead", forge([](v1::PullAck* ack) { ack->set_flushed_lsn(uint64_t{1} << 63); })},
      {"ack_ahead", forge([](v1::PullAck* ack) { ack->set_applied_lsn(std::numeric_limits<uint64_t>::max()); })},
      {"ack_order", forge([](v1::PullAck* ack) { ack->set_received_lsn(8); })},
  };
  for (const auto& [reason, change] : cases) {
    SCOPED_TRACE(reason);
    auto owner = Attach(ReplicaStart("r1", 1));
    owner->Receive();
    v1::PullAck ack = owner->MakeAck(9, 9, 9);
    change(&ack);
    EXPECT_THAT(owner->Send(ack), ReasonIs(reason));
    owner->Receive();
    EXPECT_EQ(owner->EndReason(), reason);
    ASSERT_THAT(owner->ends, SizeIs(1));
    EXPECT_EQ(owner->ends[0].reason(), reason);
    EXPECT_EQ(SlotOf("r1").confirmed_lsn, 1u);
    EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);
  }
  EXPECT_TRUE(source_->Counters().by_reason.empty());
}

TEST_F(PullSessionTest, AnAckCannotMoveTheSlotOfAnotherStream) {
  Write(9);
  auto one = Attach(ReplicaStart("r1", 1));
  v1::PullStart start = ReplicaStart("r2", 1);
  start.set_incarnation(21);
  start.set_process_instance(31);
  auto two = Attach(start);
  one->Receive();
  two->Receive();
  EXPECT_THAT(one->Send(two->MakeAck(9, 9, 9)), ReasonIs("stale_session"));
  EXPECT_EQ(SlotOf("r2").confirmed_lsn, 1u);
}

TEST_F(PullSessionTest, AnAckOfAHigherTermMakesAMembersPrimaryStepDown) {
  auto owner = Attach(ReplicaStart("r1", 1));
  v1::PullAck ack = owner->MakeAck(1, 1, 1);
  ack.set_term(2);
  EXPECT_THAT(owner->Send(ack), ReasonIs("stale_primary"));
  EXPECT_TRUE(host_.stale.empty());  // no member

  host_.view.members.members = {{"r1", 20, "r1:7700", true}};
  owner = Attach(ReplicaStart("r1", 1));
  ack = owner->MakeAck(1, 1, 1);
  ack.set_term(2);
  EXPECT_THAT(owner->Send(ack), ReasonIs("stale_primary"));
  ASSERT_THAT(host_.stale, SizeIs(1));
  EXPECT_EQ(host_.stale[0].first, "stale_primary");
}

TEST_F(PullSessionTest, OnAReplicaTheStreamItselfMayBringAHigherTerm) {
  host_.view.is_primary = false;
  auto owner = Attach(ReplicaStart("r2", 1));
  v1::PullAck ack = owner->MakeAck(1, 1, 1);
  ack.set_term(2);
  EXPECT_THAT(owner->Send(ack), IsOk());
  EXPECT_TRUE(host_.stale.empty());
}

TEST_F(PullSessionTest, TheSameProcessSupersedesItsOlderSession) {
  Write(5);
  auto older = Attach(ReplicaStart("r1", 1));
  older->Receive();
  const int wakes = older->wakes;
  auto newer = Attach(ReplicaStart("r1", 1));
  EXPECT_GT(older->wakes, wakes);
  older->Receive();
  EXPECT_EQ(older->EndReason(), "superseded");
  EXPECT_THAT(older->session->end_status(), StatusIs(absl::StatusCode::kAborted));
  ASSERT_THAT(older->ends, SizeIs(1));
  EXPECT_EQ(older->ends[0].reason(), "superseded");
  EXPECT_THAT(older->AckAll(3), IsOk());  // nobody listens any more
  older->Close();
  newer->Receive();
  EXPECT_THAT(newer->AckAll(6), IsOk());
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  EXPECT_EQ(source_->Counters().superseded_sessions, 1u);
}

TEST_F(PullSessionTest, AnotherProcessIsRefusedWhileTheSlotIsInUse) {
  auto owner = Attach(ReplicaStart("r1", 1));
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_process_instance(31);
  v1::PullStarted answer = Ask(start);
  EXPECT_EQ(answer.decision(), v1::RESUME_DECISION_REFUSE);
  EXPECT_EQ(answer.reason(), "slot_in_use");
  EXPECT_GT(answer.retry_after_ms(), 0u);
  EXPECT_EQ(answer.session_id(), 0u);
  Ask(start);
  Ask(start);
  EXPECT_EQ(source_->Counters().refused_total, 1u);  // once until its decision changes
  EXPECT_EQ(source_->Counters().by_reason.at("refuse/slot_in_use"), 1u);
  owner->Close();
  Attach(start);
}

TEST_F(PullSessionTest, ASilentSessionEndsAndFreesItsSlot) {
  auto owner = Attach(ReplicaStart("r1", 1));
  Pass(options_.session_timeout_micros);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kActive);
  Pass(100'000);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "session_timeout");
}

TEST_F(PullSessionTest, ADroppedSlotEndsItsSession) {
  auto owner = Attach(ReplicaStart("r1", 1));
  ASSERT_THAT(slots_->Drop("r1", true), IsOk());
  Pass(options_.slots_persist_micros);
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "slot_dropped");
}

TEST_F(PullSessionTest, EndSessionsEndsAllWithTheStatus) {
  auto owner = Attach(ReplicaStart("r1", 1));
  Owner silent(*source_, ReplicaStart("r2", 1));
  silent.session = source_->NewPullSession([] {});
  source_->EndSessions(MakeError(absl::StatusCode::kUnavailable, "role_changed", "bye"));
  owner->Receive();
  EXPECT_EQ(owner->EndReason(), "role_changed");
  silent.Receive();
  EXPECT_EQ(silent.EndReason(), "role_changed");
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kInactive);
}

TEST_F(PullSessionTest, NoWakeAfterClose) {
  auto owner = Attach(ReplicaStart("r1", 1));
  owner->Receive();
  owner->session->Close();
  const int wakes = owner->wakes;
  Write(1);
  Pass(1'000'000);
  source_->EndSessions(absl::CancelledError(""));
  EXPECT_EQ(owner->wakes, wakes);
}

TEST_F(PullSessionTest, MalformedStartsAreInvalid) {
  const std::vector<void (*)(v1::PullStart*)> cases = {
      [](v1::PullStart* start) { start->set_slot("../x"); },
      [](v1::PullStart* start) { start->set_slot(std::string(64, 'a')); },
      [](v1::PullStart* start) { start->set_kind(v1::SLOT_KIND_UNSPECIFIED); },
      [](v1::PullStart* start) { start->set_format(v1::RECORD_FORMAT_RECORDS); },
      [](v1::PullStart* start) { start->set_incarnation(0); },
      [](v1::PullStart* start) { start->set_process_instance(0); },
      [](v1::PullStart* start) { start->set_credit_bytes(0); },
      [](v1::PullStart* start) { start->set_cluster_id("xyz"); },
      [](v1::PullStart* start) { start->set_promised_term(uint64_t{1} << 32); },
      [](v1::PullStart* start) { start->mutable_history(0)->set_term(uint64_t{1} << 32); },
      [](v1::PullStart* start) { start->set_lsn(std::numeric_limits<uint64_t>::max()); },
      [](v1::PullStart* start) { start->set_advertised_address(std::string(1025, 'a')); },
  };
  for (const auto change : cases) {
    v1::PullStart start = ReplicaStart("r1", 1);
    change(&start);
    Owner owner(*source_, start);
    EXPECT_THAT(owner.Connect(), StatusIs(absl::StatusCode::kInvalidArgument)) << start.DebugString();
    EXPECT_THAT(source_->Explain(start, nullptr), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_TRUE(slots_->List().empty());
}

TEST_F(PullSessionTest, RequestsOutOfOrderEndTheStream) {
  auto owner = Attach(ReplicaStart("r1", 1));
  v1::PullRequest request;
  *request.mutable_start() = owner->start;
  EXPECT_THAT(owner->session->OnRequest(request), ReasonIs("invalid_start"));
  for (const auto fill : std::vector<void (*)(v1::PullRequest*)>{
           [](v1::PullRequest*) {}, [](v1::PullRequest* r) { r->mutable_ack()->set_session_id(1); },
           [](v1::PullRequest* r) { r->mutable_credit()->set_granted_bytes(1); }}) {
    const std::unique_ptr<PullSession> session = source_->NewPullSession([] {});
    request.Clear();
    fill(&request);
    EXPECT_FALSE(session->OnRequest(request).ok());
    v1::PullResponse response;
    EXPECT_EQ(session->Next(&response), NextResult::kEnd);
    EXPECT_FALSE(session->end_status().ok());
  }
}

TEST_F(PullSessionTest, AnotherProtocolVersionIsRefusedByName) {
  v1::PullStart start = ReplicaStart("r1", 1);
  start.set_protocol_version(9);
  start.set_kind(v1::SLOT_KIND_UNSPECIFIED);  // nothing else of it is understood
  EXPECT_EQ(Ask(start).reason(), "protocol_version");
}

}  // namespace
}  // namespace towline::test
