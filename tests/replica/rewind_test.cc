// A replica goes back to the last record in common with its upstream, or says why it cannot.

#include <string>

#include "common/error.h"
#include "tests/replica/rewind_fixture.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RewindTest : public RewindFixture {};

TEST_F(RewindTest, ItGoesBackAndOnWithoutASnapshot) {
  Diverge();
  const Control before = node_->control().Get();
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  ExpectHolds(new_line_);
  EXPECT_EQ(snapshots_, 0);
  EXPECT_EQ(Quarantined(node_->fs), DiscardedLsns());

  const Control control = node_->control().Get();
  EXPECT_EQ(control.generation, before.generation + 1);
  EXPECT_EQ(control.history, new_line_.history());
  EXPECT_EQ(control.exact_from, before.exact_from);
  EXPECT_EQ(control.incarnation, before.incarnation);
  EXPECT_EQ(control.members.members.size(), 2u);  // the record that named three was given up
  EXPECT_EQ(node_->live->spool().stats().first_lsn, 1u);
  EXPECT_EQ(node_->live->checkpoints().oldest(), kCheckpointLsn);

  const RewindTotals totals = node_->status().rewinds;
  EXPECT_EQ(totals.rewinds, 1u);
  EXPECT_EQ(totals.discarded_records, kOldEnd - kCommonLsn);
  EXPECT_EQ(totals.not_possible, 0u);
  EXPECT_EQ(totals.last.common_lsn, kCommonLsn);
  EXPECT_EQ(totals.last.old_lsn, kOldEnd);
  EXPECT_EQ(totals.last.checkpoint_lsn, kCheckpointLsn);
  EXPECT_EQ(totals.last.quarantine_file, "diverged-1-26.frames");
  EXPECT_EQ(node_->status().full_resyncs, 0u);
  node_->RunSteps(5);
  EXPECT_THAT(node_->fs.Names("data/gen"), ElementsAre("2"));
}

TEST_F(RewindTest, ItShowsWhatItDoes) {
  Diverge();
  std::vector<std::string> states;
  ASSERT_TRUE(node_->RunUntil([&] {
    if (states.empty() || states.back() != node_->status().state) states.push_back(node_->status().state);
    return node_->applied_lsn() == kNewEnd;
  }));
  EXPECT_THAT(states, ::testing::Contains("rewinding"));
  EXPECT_THAT(states, ::testing::Not(::testing::Contains("halted")));
  EXPECT_EQ(node_->rewinding, (std::vector<bool>{true, false}));
}

TEST_F(RewindTest, TheStateIsTheSameAfterARestartAndItCanGoBackAgain) {
  Diverge();
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  std::unique_ptr<SimFileSystem> disk = node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1);
  node_ = std::make_unique<ReplicaNode>(disk.get());
  Prepare(*node_);
  LogMaker third = new_line_;
  third = LogMaker();
  third.StartTerm(1, 11);
  third.Members({"p1", "r1"});
  while (third.end_lsn() < kCommonLsn) PutLarge(third, 'a');
  third.StartTerm(3, 33);
  third.Puts(3);
  line_ = &third;
  node_->Start(Options());
  EXPECT_EQ(node_->live->state().applied(), new_line_.PositionAt(kNewEnd));
  ASSERT_TRUE(RunUntilApplied(third.end_lsn()));
  ExpectHolds(third);
  EXPECT_EQ(snapshots_, 0);
  EXPECT_EQ(node_->control().Get().history, third.history());
  EXPECT_EQ(disk->Names("data/quarantine").size(), 2u);
  node_.reset();
}

TEST_F(RewindTest, WhatWasPrunedBeforeStaysPruned) {
  Diverge();
  TOWLINE_ASSERT_OK_AND_ASSIGN(const Lsn first,
                               node_->live->spool().Prune(19, 0, [](Lsn) { return absl::OkStatus(); }));
  ASSERT_GT(first, 1u);
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  ExpectHolds(new_line_);
  EXPECT_EQ(node_->live->spool().stats().first_lsn, first);
  EXPECT_EQ(node_->control().Get().base, new_line_.PositionAt(first - 1));
  EXPECT_EQ(node_->control().Get().members.members.size(), 0u);  // the record that named them is gone
  std::unique_ptr<SimFileSystem> disk = node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1);
  ReplicaNode after(disk.get());
  ASSERT_THAT(after.Open(), IsOk());
  EXPECT_EQ(WrongState(after, new_line_), "");
}

// --- Where it cannot ---

TEST_F(RewindTest, WithoutACheckpointNothingIsOffered) {
  interval_micros_ = 0;
  Prepare(*node_);
  Diverge();
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  ExpectHolds(new_line_);
  EXPECT_EQ(snapshots_, 1);
  EXPECT_EQ(node_->status().rewinds.rewinds, 0u);
}

TEST_F(RewindTest, ADamagedCheckpointLeadsToASnapshotOnce) {
  Diverge();
  node_->fs.SetContents("data/gen/1/checkpoints/20/MEMSTORE", "damaged");
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  ExpectHolds(new_line_);
  EXPECT_EQ(snapshots_, 1);
  EXPECT_EQ(node_->status().rewinds.rewinds, 0u);
  EXPECT_EQ(node_->status().rewinds.not_possible, 1u);
  const auto told = node_->logger.Events("rewind_not_possible");
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].fields.at("reason"), "no_rewind_checkpoint");
  EXPECT_EQ(Quarantined(node_->fs), DiscardedLsns());
  EXPECT_EQ(node_->rewinding, (std::vector<bool>{true, false}));
}

TEST_F(RewindTest, AFileSystemThatRefusesLeadsToASnapshotAndIsOfferedAnewBehindIt) {
  Diverge();
  node_->fs.FailNext(SimCall::kLink, absl::InternalError("no links here"), "gen/2");
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  EXPECT_EQ(snapshots_, 1);
  EXPECT_EQ(node_->status().rewinds.not_possible, 1u);
  node_->RunSteps(5);
  EXPECT_EQ(offered_.back(), 0u);
  ASSERT_THAT(node_->live->checkpoints().MakeNow(), IsOk());
  node_->pull().inbox.Close(absl::OkStatus());
  const size_t asked = offered_.size();
  ASSERT_TRUE(node_->RunUntil([&] { return offered_.size() > asked; }));
  EXPECT_EQ(offered_.back(), kNewEnd);
}

TEST_F(RewindTest, AFullDiskIsAPauseThatHeals) {
  for (const char* part : {"quarantine/diverged", "gen/2/wal", "gen/2/db"}) {
    SCOPED_TRACE(part);
    if (node_->controller != nullptr) {
      node_ = std::make_unique<ReplicaNode>();
      Prepare(*node_);
      line_ = &old_line_;
    }
    Diverge();
    const SimCall call = std::string(part) == "gen/2/db" ? SimCall::kLink : SimCall::kWrite;
    node_->fs.FailNext(call, FileError(ENOSPC, "write", part), part);
    ASSERT_TRUE(node_->RunUntil([&] { return node_->status().halt_reason == "disk_full"; }));
    EXPECT_EQ(node_->status().state, "halted");
    EXPECT_EQ(node_->live->number(), 1u);
    EXPECT_EQ(node_->live->state().applied(), old_line_.PositionAt(kOldEnd));  // it serves what it has
    ASSERT_TRUE(RunUntilApplied(kNewEnd));
    ExpectHolds(new_line_);
    EXPECT_EQ(snapshots_, 0);
    EXPECT_EQ(Quarantined(node_->fs), DiscardedLsns());
    EXPECT_EQ(node_->rewinding, (std::vector<bool>{true, false}));
    node_->rewinding.clear();
  }
}

// What is given up must not hang on a number that the upstream sends.
TEST_F(RewindTest, ACommonPointThatTheHistoriesDoNotShowIsRefused) {
  Diverge();
  told_common_ = kCommonLsn - 2;
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().halt_reason == "malformed"; }));
  EXPECT_THAT(node_->status().message, HasSubstr("LSN 23"));
  EXPECT_EQ(node_->live->number(), 1u);
  EXPECT_FALSE(Exists(node_->fs, "data/quarantine"));
  told_common_ = 0;
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
}

// A primary that lost the end of its term, and went on in it before it noticed.
TEST_F(RewindTest, ATermThatWasWrittenTwiceLeadsToASnapshot) {
  Diverge();
  LogMaker third;
  third.StartTerm(1, 11);
  third.Members({"p1", "r1"});
  while (third.end_lsn() < kCommonLsn - 1) PutLarge(third, 'a');
  PutLarge(third, 'z');
  third.StartTerm(2, 22);
  third.Puts(5);
  line_ = &third;
  ASSERT_TRUE(RunUntilApplied(third.end_lsn()));
  ExpectHolds(third);
  EXPECT_EQ(snapshots_, 1);
  EXPECT_EQ(node_->status().rewinds.not_possible, 1u);
  EXPECT_EQ(node_->logger.Events("rewind_not_possible")[0].fields.at("reason"), "diverged_same_term");
}

TEST_F(RewindTest, AnUpstreamOfALowerTermDoesNotMoveIt) {
  Diverge();
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  line_ = &old_line_;
  node_->pull().inbox.Close(absl::OkStatus());
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().halt_reason == "stale_upstream"; }));
  EXPECT_EQ(node_->live->state().applied(), new_line_.PositionAt(kNewEnd));
}

TEST_F(RewindTest, LeftoversOfAnUnfinishedOneGoBeforeTheNext) {
  Diverge();
  node_->fs.SetContents("data/gen/2/db/MEMSTORE", "left");
  node_->fs.SetContents("data/gen/7/wal/x", "left");
  ASSERT_TRUE(RunUntilApplied(kNewEnd));
  ExpectHolds(new_line_);
  node_->RunSteps(5);
  EXPECT_EQ(node_->fs.Names("data/gen").size(), 1u);
}

}  // namespace
}  // namespace towline::test
