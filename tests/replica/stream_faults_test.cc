// Tests of the replica's controller when something is wrong: with the stream, the upstream or the disk.
//
// Method   As in streaming_test.cc. Whatever is wrong, nothing that does not hold is appended or acknowledged, the node
//          says what it is, and goes on when it is right again.

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/streaming_fixture.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

using StreamFaultsTest = StreamingTest;

struct Damage {
  const char* name;
  const char* reason;
  std::function<v1::FrameBatch(const LogMaker&)> make;
};

v1::FrameBatch AnotherLog(const LogMaker&) {
  LogMaker other;
  other.StartTerm(1, 11);
  other.Put("another", "log");
  other.Puts(8);
  return other.Batch(6, 10);
}

v1::FrameBatch WithBadByte(const LogMaker& log) {
  v1::FrameBatch batch = log.Batch(6, 10);
  batch.mutable_frames()->back() ^= 1;
  return batch;
}

class DamagedStreamTest : public StreamingTest, public ::testing::WithParamInterface<Damage> {};

// Nothing of a message that does not hold is applied, the stream is reset, the node says so and tries again; when the
// upstream is sound again it goes on.
TEST_P(DamagedStreamTest, ResetsTheStreamAndHeals) {
  bool damaged = true;
  node_->upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log_);
    if (pull.start().lsn() == 0) pull.SendFrames(log_.Batch(1, 5));
    if (damaged) {
      pull.SendFrames(GetParam().make(log_));
    } else {
      pull.SendFrames(log_.Batch(6, 10));
    }
  };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->logger.Events("stream_reset").size() == 3; }));
  node_->RunSteps(1);
  EXPECT_EQ(node_->applied_lsn(), 5u);
  EXPECT_EQ(node_->durable_lsn(), 5u);
  EXPECT_EQ(node_->logger.Events("stream_reset")[0].fields["reason"], GetParam().reason);
  EXPECT_EQ(node_->logger.Events("stream_reset")[0].fields["own_lsn"], "5");
  EXPECT_EQ(node_->status().state, "halted");
  EXPECT_EQ(node_->status().halt_reason, GetParam().reason);

  damaged = false;
  ASSERT_TRUE(RunUntilApplied(10));
  EXPECT_EQ(node_->status().halt_reason, "");
  EXPECT_EQ(node_->live->state().applied(), log_.PositionAt(10));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, DamagedStreamTest,
    ::testing::Values(Damage{"Gap", "lsn_gap", [](const LogMaker& log) { return log.Batch(7, 10); }},
                      Damage{"Repeated", "lsn_gap", [](const LogMaker& log) { return log.Batch(5, 10); }},
                      Damage{"OtherChain", "chain_mismatch", AnotherLog}, Damage{"BadByte", "bad_frame", WithBadByte}),
    [](const ::testing::TestParamInfo<Damage>& param) { return param.param.name; });

TEST_F(StreamFaultsTest, GoodMessagesInFrontOfABadOneAreKept) {
  node_->upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log_);
    pull.SendFrames(log_.Batch(1, 3));
    pull.SendFrames(log_.Batch(4, 5));
    pull.SendFrames(log_.Batch(7, 10));
  };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->logger.Events("stream_reset").empty(); }));
  EXPECT_EQ(node_->durable_lsn(), 5u);
}

TEST_F(StreamFaultsTest, ARefusedReplicaHaltsAsksLessOftenAndRecovers) {
  bool refuse = true;
  std::vector<int64_t> asked_at;
  node_->upstream.on_pull = [&](FakePull& pull) {
    asked_at.push_back(node_->clock.MonotonicMicros());
    if (refuse) {
      pull.SendDecision(log_, v1::RESUME_DECISION_REFUSE, "slot_in_use");
    } else {
      pull.SendPartial(log_);
      pull.SendFrames(log_.Batch(1, 10));
    }
  };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return asked_at.size() == 15; }));
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().upstream_state == "refused"; }));
  EXPECT_EQ(node_->status().state, "halted");
  EXPECT_EQ(node_->status().halt_reason, "slot_in_use");
  const int64_t first_pause = asked_at[1] - asked_at[0];
  const int64_t last_pause = asked_at[14] - asked_at[13];
  EXPECT_LE(first_pause, 100'000);
  EXPECT_GE(last_pause, 20'000'000);
  EXPECT_LE(last_pause, 31'000'000);

  refuse = false;
  ASSERT_TRUE(RunUntilApplied(10));
  EXPECT_EQ(node_->status().halt_reason, "");
}

TEST_F(StreamFaultsTest, RetryAfterIsRespected) {
  std::vector<int64_t> asked_at;
  node_->upstream.on_pull = [&](FakePull& pull) {
    asked_at.push_back(node_->clock.MonotonicMicros());
    pull.SendDecision(log_, v1::RESUME_DECISION_RETRY_AFTER, "upstream_behind", 700);
  };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return asked_at.size() == 2; }));
  EXPECT_GE(asked_at[1] - asked_at[0], 700'000);
  EXPECT_EQ(node_->status().state, "disconnected");
  EXPECT_EQ(node_->status().halt_reason, "");
}

TEST_F(StreamFaultsTest, ADeadUpstreamIsAskedWithGrowingPauses) {
  node_->upstream.on_pull = nullptr;
  node_->Start();
  const int64_t begin = node_->clock.MonotonicMicros();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 20; }));
  const int64_t elapsed = node_->clock.MonotonicMicros() - begin;
  EXPECT_GE(elapsed, 40'000'000);
  EXPECT_LE(elapsed, 70'000'000);
  EXPECT_EQ(node_->status().state, "disconnected");
}

TEST_F(StreamFaultsTest, ASilentUpstreamIsLeft) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  const int64_t begin = node_->clock.MonotonicMicros();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 2; }));
  const int64_t elapsed = node_->clock.MonotonicMicros() - begin;
  EXPECT_GE(elapsed, 14'000'000);
  EXPECT_LE(elapsed, 16'500'000);
}

TEST_F(StreamFaultsTest, AnEndedSessionIsReconnected) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->pull().SendEnded("superseded");
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 2; }));
  EXPECT_EQ(node_->logger.Events("replica_disconnected")[0].fields["reason"], "superseded");
}

TEST_F(StreamFaultsTest, AnotherClusterIsRefused) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  LogMaker other(kOtherCluster);
  other.StartTerm(5, 55);
  other.Puts(20);
  node_->upstream.on_pull = [&](FakePull& pull) { pull.SendPartial(other); };
  node_->pull().inbox.Close(absl::OkStatus());
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "cluster_mismatch");
  EXPECT_EQ(node_->control().Get().cluster_id, kCluster);
}

TEST_F(StreamFaultsTest, AnUpstreamOfAnOlderTermIsRefused) {
  log_.StartTerm(3, 33);
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(log_.end_lsn()));
  LogMaker old;
  old.StartTerm(1, 11);
  node_->upstream.on_pull = [&](FakePull& pull) { pull.SendPartial(old); };
  node_->pull().inbox.Close(absl::OkStatus());
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "stale_upstream");
}

// A promise made while a stream runs: nothing of an older term is appended or acknowledged any more.
TEST_F(StreamFaultsTest, AFullDiskHaltsVisiblyAndHeals) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->fs.SetQuota(1);
  log_.Put("large", std::string(100'000, 'v'));  // needs a segment of its own
  node_->pull().SendFrames(log_.Batch(11, 11));
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "disk_full");
  node_->RunSteps(20);
  EXPECT_EQ(node_->status().state, "halted");
  EXPECT_EQ(node_->durable_lsn(), 10u);
  EXPECT_THAT(node_->fatal, IsEmpty());

  node_->fs.SetQuota(0);
  ASSERT_TRUE(RunUntilApplied(11));
  EXPECT_EQ(node_->status().halt_reason, "");
}

TEST_F(StreamFaultsTest, AFailedSyncEndsTheNodeWithoutAnAck) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->fs.FailNext(SimCall::kSync, absl::DataLossError("injected"), "wal");
  log_.Puts(1);
  node_->pull().SendFrames(log_.Batch(11, 11));
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->fatal.empty(); }));
  node_->RunSteps(50);
  EXPECT_THAT(node_->fatal, SizeIs(1));
  EXPECT_EQ(node_->upstream.pulls.size(), 1u);
  EXPECT_EQ(node_->pull().last_ack().flushed_lsn(), 10u);
  EXPECT_EQ(node_->status().state, "halted");
}

TEST_F(StreamFaultsTest, AControlThatCannotBeWrittenEndsTheNodeWithoutAnAck) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->fs.FailNext(SimCall::kSync, absl::DataLossError("injected"), "control");
  log_.StartTerm(2, 22);
  node_->pull().SendFrames(log_.Batch(11, 11));
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->fatal.empty(); }));
  EXPECT_EQ(node_->pull().last_ack().flushed_lsn(), 10u);
  // The log told of the term before control did; the next start knows it.
  Restart(/*crash=*/true);
  ASSERT_TRUE(RunUntilApplied(11));
  EXPECT_EQ(node_->control().Get().history, log_.history());
}

TEST_F(StreamFaultsTest, ADecisionThatThisVersionCannotDoHalts) {
  node_->upstream.on_pull = [&](FakePull& pull) { pull.SendDecision(log_, v1::RESUME_DECISION_UNSPECIFIED, "new"); };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "unsupported_decision");
}

TEST_F(StreamFaultsTest, ARewindThatWasNotOfferedHalts) {
  node_->upstream.on_pull = [&](FakePull& pull) { pull.SendDecision(log_, v1::RESUME_DECISION_REWIND, "diverged"); };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "malformed");
}

// --- Slots on heartbeats ---

v1::PullResponse HeartbeatWithSlots() {
  v1::PullResponse response;
  v1::Heartbeat* const heartbeat = response.mutable_heartbeat();
  heartbeat->set_sequence(1);
  heartbeat->set_durable_lsn(10);
  v1::SlotCopies* const copies = heartbeat->mutable_slots();
  copies->set_origin("p1");
  copies->set_complete(true);
  for (const char* name : {"c1", "r2"}) {
    v1::SlotCopy* const slot = copies->add_slots();
    slot->set_name(name);
    slot->set_kind(name[0] == 'c' ? v1::SLOT_KIND_CONSUMER : v1::SLOT_KIND_REPLICA);
    slot->set_generation(7);
    slot->set_confirmed_lsn(4);
    slot->set_created_time_ms(1);
    slot->set_last_active_time_ms(2);
  }
  return response;
}

TEST_F(StreamFaultsTest, TheHostHearsOfSlotsBeforeTheHeartbeatIsPassedOn) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->pull().inbox.Send(HeartbeatWithSlots());
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->heartbeats.empty(); }));
  ASSERT_THAT(node_->copies, SizeIs(1));
  const slots::SlotCopies expected = {1,
                                      "p1",
                                      true,
                                      {{"c1", slots::SlotKind::kConsumer, 7, 4, false, 1, 2},
                                       {"r2", slots::SlotKind::kReplica, 7, 4, false, 1, 2}},
                                      {}};
  EXPECT_EQ(node_->copies[0], expected);
}

TEST_F(StreamFaultsTest, MalformedSlotsEndTheStream) {
  const std::function<void(v1::SlotCopies&)> faults[] = {
      [](v1::SlotCopies& copies) { copies.clear_origin(); },
      [](v1::SlotCopies& copies) { copies.mutable_slots(0)->set_name("../c1"); },
      [](v1::SlotCopies& copies) { copies.mutable_slots(0)->set_name("z"); },
      [](v1::SlotCopies& copies) { copies.mutable_slots(1)->set_name("c1"); },
      [](v1::SlotCopies& copies) { copies.mutable_slots(0)->clear_kind(); },
      [](v1::SlotCopies& copies) { copies.mutable_slots(0)->clear_generation(); },
      [](v1::SlotCopies& copies) {
        for (int i = 0; i < 1000; ++i) copies.add_dropped("x");
      },
  };
  node_->Start();
  for (const auto& fault : faults) {
    ASSERT_TRUE(RunUntilApplied(10));
    v1::PullResponse response = HeartbeatWithSlots();
    fault(*response.mutable_heartbeat()->mutable_slots());
    const size_t pulls = node_->upstream.pulls.size();
    node_->pull().inbox.Send(response);
    ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() > pulls; }));
    EXPECT_EQ(node_->logger.Events("replica_disconnected").back().fields.at("reason"), "malformed");
  }
  EXPECT_THAT(node_->copies, IsEmpty());
}

}  // namespace
}  // namespace towline::test
