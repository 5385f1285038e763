// Tests of the replica's controller while it resumes from the log.
//
// Method   A scripted upstream in memory, a real spool on a simulated disk, the in-memory store. The test steps
//          everything; a wait moves the clock.

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/replica_node.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class StreamingTest : public ::testing::Test {
 protected:
  StreamingTest() {
    log_.StartTerm(1, 11);
    log_.Puts(9);
    // A primary that resumes everybody and sends what they lack.
    node_->upstream.on_pull = [this](FakePull& pull) {
      pull.SendPartial(log_);
      if (pull.start().lsn() < log_.end_lsn()) pull.SendFrames(log_.Batch(pull.start().lsn() + 1, log_.end_lsn()));
    };
  }

  bool RunUntilApplied(Lsn lsn) {
    return node_->RunUntil([&] {
      return !node_->upstream.pulls.empty() && node_->applied_lsn() >= lsn &&
             node_->pull().last_ack().applied_lsn() >= lsn;
    });
  }

  // The process dies and comes back; on a disk that lost power if `crash`.
  void Restart(bool crash) {
    if (node_->own_fs != nullptr) disk_ = std::move(node_->own_fs);
    const auto on_pull = node_->upstream.on_pull;
    node_.reset();
    SeededRng rng(1);
    if (crash) {
      disk_->Crash(CrashProfile::kStrict, rng);
    } else {
      disk_->Reopen();
    }
    node_ = std::make_unique<ReplicaNode>(disk_.get());
    node_->upstream.on_pull = on_pull;
    node_->Start();
  }

  std::unique_ptr<SimFileSystem> disk_;
  LogMaker log_;
  std::unique_ptr<ReplicaNode> node_ = std::make_unique<ReplicaNode>();
};

TEST_F(StreamingTest, AnEmptyReplicaAttachesAndStreamsFromTheFirstRecord) {
  node_->Start();
  EXPECT_EQ(node_->status().state, "disconnected");
  ASSERT_TRUE(RunUntilApplied(10));
  const v1::PullStart& start = node_->pull().start();
  EXPECT_EQ(start.protocol_version(), 1u);
  EXPECT_EQ(start.slot(), "r1");
  EXPECT_EQ(start.kind(), v1::SLOT_KIND_REPLICA);
  EXPECT_EQ(start.format(), v1::RECORD_FORMAT_FRAMES);
  EXPECT_EQ(start.cluster_id(), "");
  EXPECT_EQ(start.lsn(), 0u);
  EXPECT_EQ(start.incarnation(), 5u);
  EXPECT_EQ(start.process_instance(), 11u);
  EXPECT_EQ(start.oldest_rewind_lsn(), 0u);
  EXPECT_EQ(start.credit_bytes(), TestReplicaOptions().credit_bytes);

  const Control control = node_->control().Get();
  EXPECT_EQ(control.cluster_id, kCluster);
  EXPECT_EQ(control.generation, 1u);
  EXPECT_EQ(control.base, Position{});
  EXPECT_EQ(control.history, log_.history());
  EXPECT_THAT(node_->switched_to, ElementsAre(1u));
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  EXPECT_EQ(node_->live->state().applied(), log_.PositionAt(10));
  EXPECT_EQ(node_->pull().last_ack().session_id(), 7u);
  EXPECT_EQ(node_->pull().last_ack().slot_generation(), 9u);
  EXPECT_EQ(node_->pull().last_ack().term(), 1u);
  EXPECT_EQ(node_->status().partial_resyncs, 1u);
  EXPECT_EQ(node_->status().full_resyncs, 0u);
  EXPECT_THAT(node_->logger.Events("replica_connected"), SizeIs(1));
  EXPECT_THAT(node_->logger.Events("resync_decision"), SizeIs(1));
  EXPECT_THAT(node_->logger.Events("generation_switched"), SizeIs(1));
}

TEST_F(StreamingTest, AReconnectResumesBehindTheLastDurableRecord) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->pull().inbox.Close(absl::UnavailableError("cut"));
  log_.Puts(5);
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 2 && node_->applied_lsn() == 15; }));
  const v1::PullStart& start = node_->pull().start();
  EXPECT_EQ(start.lsn(), 10u);
  EXPECT_EQ(start.chain(), log_.EndAt(10).chain);
  EXPECT_EQ(start.cluster_id(), kCluster);
  ASSERT_EQ(start.history_size(), 1);
  EXPECT_EQ(start.history(0).term_id(), 11u);
  EXPECT_EQ(start.first_retained_lsn(), 1u);
  EXPECT_EQ(node_->live->spool().stats().appended_records, 15u);
  EXPECT_EQ(node_->status().partial_resyncs, 2u);
}

TEST_F(StreamingTest, ARestartResumesFromTheDurableEnd) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  for (const bool crash : {false, true}) {
    const Lsn before = log_.end_lsn();
    Restart(crash);
    EXPECT_EQ(node_->applied_lsn(), before);
    log_.Puts(3);
    ASSERT_TRUE(RunUntilApplied(before + 3));
    EXPECT_EQ(node_->pull().start().lsn(), before);
    EXPECT_EQ(node_->live->state().applied(), log_.PositionAt(before + 3));
    EXPECT_THAT(node_->switched_to, IsEmpty());
  }
}

// The ordering that everything rests on: what is acknowledged survives a power loss at that very moment, and terms are
// in both copies of control.
TEST_F(StreamingTest, AnAcknowledgedRecordAndItsTermSurviveAPowerLoss) {
  log_.StartTerm(2, 22);
  log_.Puts(5);
  int checked = 0;
  node_->upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log_);
    pull.SendFrames(log_.Batch(1, 6));
    pull.SendFrames(log_.Batch(7, log_.end_lsn()));
    pull.on_ack = [&](const v1::PullAck& ack) {
      const std::unique_ptr<SimFileSystem> crashed = node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1);
      for (const char* lost : {"", "data/control.a", "data/control.b"}) {
        if (*lost != 0) crashed->SetContents(lost, "");
        ReplicaNode after(crashed.get());
        ASSERT_THAT(after.Open(), IsOk());
        EXPECT_GE(after.durable_lsn(), ack.flushed_lsn());
        EXPECT_EQ(after.control().Get().history, ack.flushed_lsn() == 0 ? History() : log_.history());
        if (*lost != 0) crashed->SetContents(lost, node_->fs.Contents(lost));
        ++checked;
      }
    };
  };
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(log_.end_lsn()));
  EXPECT_GE(checked, 6);
}

TEST_F(StreamingTest, MembersAreSavedToControl) {
  log_.Members({"p1", "r1"});
  log_.Puts(1);
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(log_.end_lsn()));
  Restart(/*crash=*/true);
  EXPECT_THAT(node_->control().Get().members.members, SizeIs(2));
}

TEST_F(StreamingTest, AFragmentedFrameArrivesWhole) {
  const Lsn lsn = log_.Put("large", std::string(5000, 'v'));
  node_->upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log_);
    pull.SendFrames(log_.Batch(1, lsn - 1));
    const std::string& shipped = log_.shipped(lsn);
    for (size_t offset = 0; offset < shipped.size(); offset += 2000) {
      v1::FrameBatch fragment = log_.Batch(lsn, lsn);
      fragment.set_frames(shipped.substr(offset, 2000));
      fragment.set_fragment_offset(offset);
      fragment.set_fragment_total(shipped.size());
      pull.SendFrames(fragment);
      pull.SendHeartbeat(offset + 1, lsn);
    }
  };
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(lsn));
  EXPECT_EQ(node_->ReadKey("large").size(), 5000u);
}

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

TEST_F(StreamingTest, GoodMessagesInFrontOfABadOneAreKept) {
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

TEST_F(StreamingTest, ARefusedReplicaHaltsAsksLessOftenAndRecovers) {
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

TEST_F(StreamingTest, RetryAfterIsRespected) {
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

TEST_F(StreamingTest, ADeadUpstreamIsAskedWithGrowingPauses) {
  node_->upstream.on_pull = nullptr;
  node_->Start();
  const int64_t begin = node_->clock.MonotonicMicros();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 20; }));
  const int64_t elapsed = node_->clock.MonotonicMicros() - begin;
  EXPECT_GE(elapsed, 40'000'000);
  EXPECT_LE(elapsed, 70'000'000);
  EXPECT_EQ(node_->status().state, "disconnected");
}

TEST_F(StreamingTest, CreditFollowsWhatIsDurableAndStopsWhileTheApplierIsBehind) {
  ReplicaOptions options = TestReplicaOptions();
  options.credit_bytes = 2000;
  options.apply_queue_max_bytes = 1000;
  log_.Puts(40);
  const v1::FrameBatch first = log_.Batch(1, 10);
  const v1::FrameBatch second = log_.Batch(11, 50);
  node_->upstream.on_pull = [&](FakePull& pull) { pull.SendPartial(log_); };
  node_->Start(options);
  ASSERT_TRUE(node_->RunUntil([&] { return !node_->upstream.pulls.empty() && !node_->pull().acks().empty(); }));
  EXPECT_THAT(node_->pull().grants(), IsEmpty());

  node_->pull().SendFrames(first);
  node_->StepController();
  EXPECT_THAT(node_->pull().grants(), ElementsAre(2000 + first.frames().size()));
  node_->executor.RunUntilIdle();

  // Nothing is applied now: the log takes the records, and no credit is given out.
  node_->pull().SendFrames(second);
  for (int i = 0; i < 20; ++i) node_->StepController();
  EXPECT_EQ(node_->pull().last_ack().flushed_lsn(), 50u);
  EXPECT_EQ(node_->pull().last_ack().applied_lsn(), 10u);
  EXPECT_THAT(node_->pull().grants(), SizeIs(1));

  ASSERT_TRUE(RunUntilApplied(50));
  EXPECT_THAT(node_->pull().grants(),
              ElementsAre(2000 + first.frames().size(), 2000 + first.frames().size() + second.frames().size()));
}

TEST_F(StreamingTest, SeveralMessagesBecomeOneAppend) {
  node_->upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log_);
    for (Lsn lsn = 1; lsn <= 10; ++lsn) pull.SendFrames(log_.Batch(lsn, lsn));
  };
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  EXPECT_EQ(node_->live->spool().stats().groups, 1u);
}

TEST_F(StreamingTest, HeartbeatsAreToldAndAcknowledgedOnceApplied) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  EXPECT_EQ(node_->status().state, "catching_up");
  node_->pull().SendHeartbeat(3, 10, 8);
  node_->RunSteps(1);
  EXPECT_THAT(node_->heartbeats, ElementsAre(3u));
  EXPECT_EQ(node_->pull().last_ack().heartbeat_sequence(), 3u);
  EXPECT_EQ(node_->pull().last_ack().heartbeat_applied_sequence(), 3u);
  EXPECT_EQ(node_->status().state, "streaming");
  EXPECT_EQ(node_->status().upstream_committed_lsn, 8u);

  log_.Puts(1);
  node_->pull().SendHeartbeat(4, 11);
  node_->RunSteps(1);
  EXPECT_EQ(node_->pull().last_ack().heartbeat_sequence(), 4u);
  EXPECT_EQ(node_->pull().last_ack().heartbeat_applied_sequence(), 3u);
  EXPECT_EQ(node_->status().upstream_durable_lsn, 11u);
  node_->pull().SendFrames(log_.Batch(11, 11));
  ASSERT_TRUE(RunUntilApplied(11));
  EXPECT_EQ(node_->pull().last_ack().heartbeat_applied_sequence(), 4u);
}

TEST_F(StreamingTest, BehindWithoutProgressIsStalled) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  for (uint64_t i = 1; i < 50; ++i) {
    node_->pull().SendHeartbeat(i, 11);
    node_->clock.Advance(250'000);
    node_->RunSteps(1);
  }
  EXPECT_EQ(node_->status().state, "stalled");
  log_.Puts(1);
  node_->pull().SendFrames(log_.Batch(11, 11));
  ASSERT_TRUE(RunUntilApplied(11));
  EXPECT_EQ(node_->status().state, "streaming");
}

TEST_F(StreamingTest, ASilentUpstreamIsLeft) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  const int64_t begin = node_->clock.MonotonicMicros();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 2; }));
  const int64_t elapsed = node_->clock.MonotonicMicros() - begin;
  EXPECT_GE(elapsed, 14'000'000);
  EXPECT_LE(elapsed, 16'500'000);
}

TEST_F(StreamingTest, AnEndedSessionIsReconnected) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->pull().SendEnded("superseded");
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() == 2; }));
  EXPECT_EQ(node_->logger.Events("replica_disconnected")[0].fields["reason"], "superseded");
}

TEST_F(StreamingTest, AnotherClusterIsRefused) {
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

TEST_F(StreamingTest, AnUpstreamOfAnOlderTermIsRefused) {
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
TEST_F(StreamingTest, APromiseStopsRecordsOfOlderTerms) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  ASSERT_THAT(node_->control().Update(true,
                                      [](Control& control) {
                                        control.promised_term = 2;
                                        control.promised_candidate = "r2";
                                      }),
              IsOk());
  const std::shared_ptr<FakePull> pull = node_->upstream.pulls.back();
  log_.Puts(1);
  pull->SendFrames(log_.Batch(11, 11));
  node_->RunSteps(20);
  EXPECT_EQ(node_->durable_lsn(), 10u);
  EXPECT_EQ(pull->last_ack().flushed_lsn(), 10u);
  EXPECT_EQ(node_->status().halt_reason, "stale_upstream");

  // The candidate's own term is what the promise waits for.
  log_ = LogMaker();
  log_.StartTerm(1, 11);
  log_.Puts(9);
  log_.StartTerm(2, 22);
  log_.Puts(1);
  ASSERT_TRUE(RunUntilApplied(12));
}

TEST_F(StreamingTest, AFullDiskHaltsVisiblyAndHeals) {
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

TEST_F(StreamingTest, AFailedSyncEndsTheNodeWithoutAnAck) {
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

TEST_F(StreamingTest, AControlThatCannotBeWrittenEndsTheNodeWithoutAnAck) {
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

TEST_F(StreamingTest, ShutdownEndsTheStreamAndConnectsNoMore) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->controller->Shutdown();
  node_->RunSteps(20);
  EXPECT_EQ(node_->upstream.pulls.size(), 1u);
  EXPECT_TRUE(node_->pull().inbox.closed());
}

TEST_F(StreamingTest, ADecisionThatThisVersionCannotDoHalts) {
  node_->upstream.on_pull = [&](FakePull& pull) { pull.SendDecision(log_, v1::RESUME_DECISION_REWIND, "diverged"); };
  node_->Start();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "unsupported_decision");
}

// After a power loss at any moment of the first attach and the first records, the directory opens, and control names a
// generation only when that generation is whole.
TEST_F(StreamingTest, EveryCrashStateOfTheFirstAttachOpens) {
  int states = 0;
  node_->fs.SetAfterCall([&] {
    ForEachCrashState(node_->fs, 1, [&](SimFileSystem& crashed) {
      ReplicaNode after(&crashed);
      ASSERT_THAT(after.Open(), IsOk());
      ASSERT_GE(after.durable_lsn(), node_->upstream.pulls.empty() ? 0 : node_->pull().last_ack().flushed_lsn());
      ASSERT_EQ(after.live != nullptr, !after.control().Get().cluster_id.empty());
      ++states;
    });
  });
  log_.StartTerm(2, 22);
  log_.Puts(2);
  node_->upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log_);
    pull.SendFrames(log_.Batch(1, 10));
    pull.SendHeartbeat(1, 13);
  };
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->pull().SendFrames(log_.Batch(11, 13));
  ASSERT_TRUE(RunUntilApplied(13));
  node_->fs.SetAfterCall(nullptr);
  EXPECT_GT(states, 50);
}

// The same from every crash state on: a node that lost power anywhere attaches again and ends with the same state.
TEST_F(StreamingTest, EveryCrashStateOfTheFirstAttachResumes) {
  std::vector<std::unique_ptr<SimFileSystem>> disks;
  node_->fs.SetAfterCall([&] { disks.push_back(node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1)); });
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->fs.SetAfterCall(nullptr);
  const auto on_pull = node_->upstream.on_pull;
  for (std::unique_ptr<SimFileSystem>& disk : disks) {
    node_.reset();
    disk_ = std::move(disk);
    node_ = std::make_unique<ReplicaNode>(disk_.get());
    node_->upstream.on_pull = on_pull;
    node_->Start();
    ASSERT_TRUE(RunUntilApplied(10));
    EXPECT_EQ(node_->live->state().applied(), log_.PositionAt(10));
    EXPECT_EQ(node_->control().Get().history, log_.history());
  }
}

}  // namespace
}  // namespace towline::test
