// Tests of the replica's controller while it resumes from the log.
//
// Method   A scripted upstream in memory, a real spool on a simulated disk, the in-memory store. The test steps
//          everything; a wait moves the clock.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/streaming_fixture.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

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

// Streams two terms, and after each ack takes the power away from a copy of the disk, with both copies of control or
// only one left. Returns what was acknowledged and is not there.
std::vector<std::string> LostAfterAcks(ReplicaNode& node, const LogMaker& log, int* acks) {
  std::vector<std::string> lost;
  node.upstream.on_pull = [&](FakePull& pull) {
    pull.SendPartial(log);
    pull.SendFrames(log.Batch(1, 6));
    pull.SendFrames(log.Batch(7, log.end_lsn()));
    pull.on_ack = [&](const v1::PullAck& ack) {
      ++*acks;
      const std::unique_ptr<SimFileSystem> crashed = node.fs.CloneAfterCrash(CrashProfile::kStrict, 1);
      for (const char* damaged : {"", "data/control.a", "data/control.b"}) {
        const std::unique_ptr<SimFileSystem> disk = crashed->Clone();
        if (*damaged != 0) disk->SetContents(damaged, "");
        ReplicaNode after(disk.get());
        const absl::Status opened = after.Open();
        if (!opened.ok()) {
          lost.push_back(opened.ToString());
        } else if (after.durable_lsn() < ack.flushed_lsn()) {
          lost.push_back(absl::StrCat("records from ", after.durable_lsn() + 1, " on"));
        } else if (ack.flushed_lsn() != 0 && after.control().Get().history != log.history()) {
          lost.push_back(absl::StrCat("terms without ", damaged));
        }
      }
    };
  };
  node.Start();
  node.RunUntil([&] { return node.applied_lsn() == log.end_lsn() || !node.fatal.empty(); });
  return lost;
}

// The ordering that everything rests on: what is acknowledged survives a power loss at that very moment, and terms are
// in both copies of control.
TEST_F(StreamingTest, AnAcknowledgedRecordAndItsTermSurviveAPowerLoss) {
  log_.StartTerm(2, 22);
  log_.Puts(5);
  int acks = 0;
  EXPECT_THAT(LostAfterAcks(*node_, log_, &acks), IsEmpty());
  EXPECT_EQ(node_->applied_lsn(), log_.end_lsn());
  EXPECT_GE(acks, 2);
}

class PlantedFaultTest : public StreamingTest, public ::testing::WithParamInterface<const char*> {};

// The check above sees faults of this kind.
TEST_P(PlantedFaultTest, IsCaught) {
  log_.StartTerm(2, 22);
  log_.Puts(5);
  const FailpointScope fault(GetParam());
  int acks = 0;
  EXPECT_THAT(LostAfterAcks(*node_, log_, &acks), Not(IsEmpty()));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PlantedFaultTest,
                         ::testing::Values("replica_ack_early", "replica_skip_term_save", "replica_save_term_once"));

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

TEST_F(StreamingTest, ShutdownEndsTheStreamAndConnectsNoMore) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  node_->controller->Shutdown();
  node_->RunSteps(20);
  EXPECT_EQ(node_->upstream.pulls.size(), 1u);
  EXPECT_TRUE(node_->pull().inbox.closed());
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
