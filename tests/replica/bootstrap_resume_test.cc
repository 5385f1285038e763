// Tests of a snapshot transfer that is cut, damaged, refused or outlived by its snapshot, and goes on.

#include "common/error.h"
#include "tests/replica/resume_fixture.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class BootstrapResumeTest : public ResumeFixture {};

TEST_F(BootstrapResumeTest, WhatWasReceivedIsNotSentAgainHoweverOftenTheStreamIsCut) {
  messages_ = 3;  // header and two chunks
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  ASSERT_GT(streams().size(), 5u);
  for (size_t i = 1; i < streams().size(); ++i) {
    const v1::SnapshotCursor& cursor = streams()[i]->request.start().snapshot_cursor();
    EXPECT_EQ(cursor.sequence(), 2 * i);
    EXPECT_EQ(cursor.snapshot_id(), kFirstSnapshotId);
    EXPECT_EQ(cursor.position().lsn(), kFirstRead);
    EXPECT_EQ(cursor.read_position().lsn(), kFirstRead);
  }
  const ReplicaStatusView status = node_->status();
  EXPECT_EQ(status.bootstrap_resumes, streams().size() - 1);
  EXPECT_EQ(status.bootstrap_restarts, 0u);
  EXPECT_EQ(status.bootstrap_bytes_again, 0u);
  EXPECT_EQ(status.full_resyncs, 1u);
  EXPECT_EQ(status.halt_reason, "");
}

TEST_F(BootstrapResumeTest, ARestartGoesOnBehindWhatIsDurable) {
  messages_ = 12;
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return DurableBytes() > 0; }));
  const uint64_t durable = DurableBytes();
  Restart();
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  messages_ = 0;
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_EQ(streams()[0]->request.start().snapshot_cursor().bytes(), durable);
  EXPECT_THAT(node_->logger.Events("bootstrap_resumed"), SizeIs(1));
  EXPECT_EQ(node_->status().bootstrap_restarts, 0u);
}

// While it connects, loads, waits, replays, switches; with a source that keeps its snapshot, and one that loses it.
TEST_F(BootstrapResumeTest, AKillBehindEveryStepIsSurvived) {
  AttachAndFallBehind();
  const std::unique_ptr<SimFileSystem> before = node_->fs.Clone();
  node_.reset();
  bool through = false;
  int steps = 0;
  for (; !through && steps < 200; ++steps) {
    SCOPED_TRACE(steps);
    snapshot_id_ = kFirstSnapshotId;
    read_ = kFirstRead;
    messages_ = 14;
    node_.reset();
    disk_ = before->Clone();
    Restart();
    node_->RunSteps(steps / 2);
    if (steps % 2 == 1) LoseSnapshot();
    node_->RunSteps(steps / 2);
    through = node_->applied_lsn() == kLogEnd;
    Restart();
    ASSERT_TRUE(RunUntilApplied(kLogEnd));
    ASSERT_NO_FATAL_FAILURE(ExpectHoldsLog());
    EXPECT_EQ(node_->live->number(), 2u);
  }
  EXPECT_TRUE(through);
  EXPECT_GT(steps, 10);
}

TEST_F(BootstrapResumeTest, AStreamThatRolledIsReplayedToExactnessBeforeItIsSwitchedTo) {
  messages_ = 8;
  send_to_ = kSecondRead - 1;
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] {
    return streams().size() == 1 && node_->status().bootstrap.has_value() &&
           node_->status().bootstrap->phase == "waiting";
  }));
  LoseSnapshot();
  messages_ = 0;
  ASSERT_TRUE(node_->RunUntil([&] {
    const auto progress = node_->status().bootstrap;
    return progress.has_value() && progress->phase == "replaying" && node_->upstream.pulls.size() > 3 &&
           node_->pull().last_ack().received_lsn() == send_to_;
  }));
  node_->RunSteps(40);
  // It has all but one record, and says only that it received them.
  EXPECT_THAT(node_->switched_to, ElementsAre(1u));
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  EXPECT_EQ(node_->ReadKey("key-12"), "");
  EXPECT_EQ(node_->status().state, "bootstrapping");
  EXPECT_EQ(node_->pull().start().lsn(), kFirstRead);
  EXPECT_EQ(node_->pull().start().exact_from().lsn(), kSecondRead);
  for (const v1::PullAck& ack : node_->pull().acks()) {
    EXPECT_EQ(ack.flushed_lsn(), 0u);
    EXPECT_EQ(ack.applied_lsn(), 0u);
  }
  EXPECT_EQ(node_->control().Get().generation, 1u);

  node_->pull().SendFrames(log_.Batch(kSecondRead, kSecondRead));
  send_to_ = kLogEnd;
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_THAT(node_->switched_to, ElementsAre(1u, 2u));
  const Control control = node_->control().Get();
  EXPECT_EQ(control.base, log_.PositionAt(kFirstRead));
  EXPECT_EQ(control.exact_from, log_.PositionAt(kSecondRead));
  EXPECT_EQ(control.history, log_.history());
  EXPECT_EQ(node_->pull().start().lsn(), kSecondRead);
  ASSERT_TRUE(node_->RunUntil([&] { return node_->pull().last_ack().applied_lsn() == kLogEnd; }));
  EXPECT_EQ(node_->ReadKey("key-12"), "changed");
  EXPECT_EQ(node_->ReadKey("key-13"), "");
}

// A source cannot make it count itself exact earlier than it was told once.
TEST_F(BootstrapResumeTest, AReadPositionThatGoesBackIsRefused) {
  messages_ = 6;
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return streams().size() == 1 && streams()[0]->inbox.unread() == 0; }));
  LoseSnapshot();
  ASSERT_TRUE(node_->RunUntil([&] { return streams().size() == 2 && streams()[1]->inbox.unread() == 0; }));
  read_ = kFirstRead;
  ++snapshot_id_;
  ASSERT_TRUE(node_->RunUntil([&] { return streams().size() == 4; }));
  const auto failures = node_->logger.Events("bootstrap_failed");
  EXPECT_EQ(failures.back().fields.at("reason"), "bad_snapshot");
  EXPECT_EQ(node_->status().bootstrap->exact_from_lsn, kSecondRead);
  read_ = kSecondRead;
  messages_ = 0;
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
}

struct ChunkFault {
  const char* name;
  std::function<void(Stream&)> change;  // of a stream with header and at least four chunks
};

class ChunkFaultTest : public ResumeFixture, public ::testing::WithParamInterface<ChunkFault> {};

// The bad chunk is refused and fetched again; what came before it stays.
TEST_P(ChunkFaultTest, OnlyThatChunkIsFetchedAgain) {
  int faults = 1;
  change_ = [&](Stream& stream) {
    if (faults-- > 0) GetParam().change(stream);
  };
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  ASSERT_EQ(streams().size(), 2u);
  EXPECT_GE(streams()[1]->request.start().snapshot_cursor().sequence(), 2u);
  EXPECT_EQ(node_->status().bootstrap_restarts, 0u);
  EXPECT_THAT(node_->logger.Events("bootstrap_dropped"), IsEmpty());
  EXPECT_THAT(node_->logger.Events("bootstrap_failed"), SizeIs(1));
}

const ChunkFault kChunkFaults[] = {
    {"BitFlip", [](Stream& s) { s[3].mutable_chunk()->mutable_data()->at(1000) ^= 1; }},
    {"Truncation", [](Stream& s) { s[3].mutable_chunk()->mutable_data()->pop_back(); }},
    {"Duplicate", [](Stream& s) { s.insert(s.begin() + 3, s[2]); }},
    {"WrongOrder", [](Stream& s) { std::swap(s[3], s[4]); }},
    {"Missing", [](Stream& s) { s.erase(s.begin() + 3); }},
    {"WrongSnapshot", [](Stream& s) { s[3].mutable_chunk()->set_snapshot_id(1); }},
};

INSTANTIATE_TEST_SUITE_P(Kinds, ChunkFaultTest, ::testing::ValuesIn(kChunkFaults),
                         [](const ::testing::TestParamInfo<ChunkFault>& param) { return param.param.name; });

TEST_F(BootstrapResumeTest, AChunkThatIsRefusedThreeTimesRestartsTheTransfer) {
  int refused = 0;
  change_ = [&](Stream& stream) {
    for (v1::FetchSnapshotResponse& response : stream) {
      if (refused >= 3 || !response.has_chunk() || response.chunk().sequence() != 7) continue;
      response.mutable_chunk()->mutable_data()->at(99) ^= 8;
      ++refused;
    }
  };
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  ASSERT_EQ(streams().size(), 4u);
  EXPECT_EQ(streams()[2]->request.start().snapshot_cursor().sequence(), 6u);
  EXPECT_FALSE(streams()[3]->request.start().has_snapshot_cursor());
  EXPECT_THAT(node_->logger.Events("bootstrap_dropped"), SizeIs(1));
  EXPECT_EQ(node_->live->number(), 2u);
}

// Chunks that are good on the way to the same end do not make up for it.
TEST_F(BootstrapResumeTest, AnEndThatIsRefusedThreeTimesRestartsTheTransfer) {
  int refused = 0;
  change_ = [&](Stream& stream) {
    if (refused++ < 3) stream.back().mutable_end()->set_digest(std::string(32, '0'));
  };
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  ASSERT_EQ(streams().size(), 4u);
  EXPECT_TRUE(streams()[2]->request.start().has_snapshot_cursor());
  EXPECT_FALSE(streams()[3]->request.start().has_snapshot_cursor());
  EXPECT_THAT(node_->logger.Events("bootstrap_dropped"), SizeIs(1));
}

// Who is told to come again later does so, and has not failed.
TEST_F(BootstrapResumeTest, ASourceThatIsFullIsAskedAgainWhenItSaid) {
  ErrorInfo info{
      "snapshot_limit", "4 snapshots are being sent already", "ask again later", {{"retry_after_ms", "9000"}}};
  refusal_ = MakeError(absl::StatusCode::kResourceExhausted, std::move(info));
  refusals_ = 6;
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return streams().size() == 1; }));
  const int64_t first = node_->clock.MonotonicMicros();
  ASSERT_TRUE(node_->RunUntil([&] { return streams().size() == 6; }));
  EXPECT_GE(node_->clock.MonotonicMicros() - first, int64_t{5} * 9'000'000);
  EXPECT_EQ(node_->status().halt_reason, "");
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_THAT(node_->logger.Events("bootstrap_failed"), IsEmpty());
}

TEST_F(BootstrapResumeTest, ADiskThatFillsWhileLoadingKeepsWhatIsDurable) {
  messages_ = 12;
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return DurableBytes() > 0 && streams().size() == 1; }));
  const uint64_t durable = DurableBytes();
  messages_ = 0;
  node_->fs.SetQuota(1);
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().state == "halted"; }));
  EXPECT_EQ(node_->status().halt_reason, "disk_full");
  EXPECT_EQ(node_->ReadKey("key-10"), "value-10");
  EXPECT_THAT(node_->fatal, IsEmpty());
  EXPECT_GE(DurableBytes(), durable);
  node_->fs.SetQuota(0);
  const size_t before = streams().size();
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  ASSERT_GT(streams().size(), before);
  EXPECT_GE(streams()[before]->request.start().snapshot_cursor().bytes(), durable);
  EXPECT_EQ(node_->status().bootstrap_restarts, 0u);
  EXPECT_EQ(node_->status().halt_reason, "");
}

TEST_F(BootstrapResumeTest, AFullResyncIsDoneOnceWhenItIsAskedFor) {
  node_->Start();
  ASSERT_TRUE(RunUntilApplied(10));
  while (log_.end_lsn() < kLogEnd) PutLarge();
  EXPECT_TRUE(node_->controller->RequestBootstrap());
  messages_ = 10;  // and cut now and then
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_EQ(node_->live->number(), 2u);
  EXPECT_EQ(node_->status().full_resyncs, 1u);
  EXPECT_GT(streams().size(), 1u);
  EXPECT_EQ(node_->logger.Events("bootstrap_finished")[0].fields.at("reason"), "requested");
  node_->pull().inbox.Close(absl::OkStatus());
  const size_t pulls = node_->upstream.pulls.size();
  ASSERT_TRUE(node_->RunUntil([&] { return node_->upstream.pulls.size() > pulls; }));
  EXPECT_FALSE(node_->pull().start().snapshot_requested());
  EXPECT_EQ(node_->status().full_resyncs, 1u);
}

}  // namespace
}  // namespace towline::test
