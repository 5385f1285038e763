// Tests of Generation: log and state of one directory, opened and made to agree.
//
// Method   A simulated disk, and the in-memory store on it. The store keeps only what was flushed, so that a restart
//          without a flush leaves it behind the log.

#include "replica/generation.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/log_maker.h"
#include "tests/replica/replica_node.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

Control LiveControl(const LogMaker& log) {
  Control control = NewReplicaControl();
  control.cluster_id = log.cluster_id();
  control.generation = 1;
  control.history = log.history();
  return control;
}

class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest() : node_(std::make_unique<ReplicaNode>()) {
    log_.StartTerm(1, 11);
    log_.Puts(9);
  }

  absl::StatusOr<std::unique_ptr<Generation>> Open(const Control& control) {
    return Generation::Open(*node_->env, control, {}, 0, &report_);
  }

  // A generation that holds records 1 to `lsn`; flushed or not.
  void Write(const LogMaker& log, Lsn lsn, bool flush) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(log)));
    ASSERT_THAT(generation->AppendAndApply(log.Group(1, lsn), log.history(), nullptr), IsOk());
    node_->executor.RunUntilIdle();
    ASSERT_EQ(generation->applier().applied_lsn(), lsn);
    if (!flush) return;
    ASSERT_THAT(generation->Close(), IsOk());
  }

  LogMaker log_;
  std::unique_ptr<ReplicaNode> node_;
  wal::RecoveryReport report_;
};

TEST_F(GenerationTest, ANewOneIsEmptyAndDurable) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(LogMaker())));
  EXPECT_EQ(generation->number(), 1u);
  EXPECT_EQ(generation->spool().end().lsn, 0u);
  EXPECT_EQ(generation->state().applied(), Position{});
  generation.reset();
  SeededRng rng(1);
  node_->fs.Crash(CrashProfile::kStrict, rng);
  EXPECT_THAT(node_->fs.List("data/gen/1"), IsOkAndHolds(::testing::ElementsAre("db", "wal")));
  EXPECT_THAT(Open(LiveControl(LogMaker())), IsOk());
}

TEST_F(GenerationTest, AppendedRecordsAreDurableThenVisible) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(log_)));
  std::vector<Lsn> seen;
  const uint64_t id = generation->AddAppliedListener([&](Lsn lsn) { seen.push_back(lsn); });
  int done = 0;
  ASSERT_THAT(generation->AppendAndApply(log_.Group(1, 10), log_.history(), [&] { ++done; }), IsOk());
  EXPECT_EQ(generation->spool().end().lsn, 10u);
  EXPECT_EQ(done, 0);
  node_->executor.RunUntilIdle();
  EXPECT_EQ(done, 1);
  EXPECT_EQ(generation->state().applied(), log_.PositionAt(10));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto entry, generation->state().Get("key-10", 0));
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->value, "value-10");
  EXPECT_EQ(seen, std::vector<Lsn>{10});

  generation->RemoveAppliedListener(id);
  log_.Puts(1);
  ASSERT_THAT(generation->AppendAndApply(log_.Group(11, 11), log_.history(), nullptr), IsOk());
  node_->executor.RunUntilIdle();
  EXPECT_EQ(seen.size(), 1u);
}

TEST_F(GenerationTest, AStoreBehindItsLogCatchesUp) {
  Write(log_, 10, /*flush=*/false);
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(log_)));
  EXPECT_EQ(generation->state().applied(), log_.PositionAt(10));
  EXPECT_EQ(generation->applier().applied_lsn(), 10u);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto entry, generation->state().Get("key-7", 0));
  ASSERT_TRUE(entry.has_value());
}

TEST_F(GenerationTest, AStoreInTheMiddleOfItsLogCatchesUp) {
  Write(log_, 6, /*flush=*/true);
  {
    TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(log_)));
    ASSERT_THAT(generation->AppendAndApply(log_.Group(7, 10), log_.history(), nullptr), IsOk());
    node_->executor.RunUntilIdle();
  }
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(log_)));
  EXPECT_EQ(report_.watermark, 6u);
  EXPECT_EQ(report_.watermark_source, "store");
  EXPECT_EQ(generation->state().applied(), log_.PositionAt(10));
}

TEST_F(GenerationTest, CloseLeavesNothingToReplay) {
  Write(log_, 10, /*flush=*/true);
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(log_)));
  EXPECT_THAT(generation->state().PersistedLsn(), IsOkAndHolds(10u));
  EXPECT_THAT(generation->Close(), IsOk());
  EXPECT_THAT(generation->Close(), IsOk());
}

TEST_F(GenerationTest, TermsThatControlMissedAreFoundInTheLog) {
  const Control old = LiveControl(log_);
  log_.StartTerm(2, 22);
  log_.Puts(3);
  Write(log_, log_.end_lsn(), /*flush=*/false);
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(old));
  EXPECT_EQ(generation->history_at_open(), log_.history());
  EXPECT_EQ(generation->state().applied(), log_.PositionAt(log_.end_lsn()));
}

TEST_F(GenerationTest, ATermStartInAGroupCountsForItsRecords) {
  const History before = log_.history();
  log_.StartTerm(2, 22);
  log_.Puts(3);
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(LogMaker())));
  ASSERT_THAT(generation->AppendAndApply(log_.Group(1, log_.end_lsn()), before, nullptr), IsOk());
  node_->executor.RunUntilIdle();
  EXPECT_EQ(generation->state().applied(), log_.PositionAt(log_.end_lsn()));
}

TEST_F(GenerationTest, RecordsOfAnUnknownTermAreNotWritten) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(LiveControl(LogMaker())));
  ASSERT_THAT(generation->AppendAndApply(log_.Group(1, 5), {}, nullptr), IsOk());
  EXPECT_THAT(generation->AppendAndApply(log_.Group(6, 10), {}, nullptr), ReasonIs("unknown_term"));
  EXPECT_EQ(generation->spool().end().lsn, 5u);
}

// The store persists only what the log held durably, so a store that is ahead proves that the log lost records.
TEST_F(GenerationTest, AStoreAheadOfItsLogIsRefused) {
  Write(log_, 10, /*flush=*/true);
  ASSERT_THAT(RemoveAll(node_->fs, "data/gen/1/wal"), IsOk());
  EXPECT_THAT(Open(LiveControl(log_)), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(GenerationTest, AWatermarkAboveTheLogIsRefused) {
  Write(log_, 10, /*flush=*/true);
  Control control = LiveControl(log_);
  control.watermark = 11;
  EXPECT_THAT(Open(control), ReasonIs("wal_corrupt"));
  control.watermark = 10;
  EXPECT_THAT(Open(control), IsOk());
  EXPECT_THAT(Generation::Open(*node_->env, control, {{"slot:r2", 11}}, 0, nullptr), ReasonIs("wal_corrupt"));
}

// At the end of the log and in front of it.
TEST_F(GenerationTest, AStoreOfAnotherLogIsRefused) {
  LogMaker other;
  other.StartTerm(1, 11);
  other.Put("another", "log");
  other.Puts(8);
  for (const Lsn lsn : {Lsn{6}, Lsn{10}}) {
    SCOPED_TRACE(lsn);
    node_ = std::make_unique<ReplicaNode>();
    Write(other, lsn, /*flush=*/true);
    const std::string store = node_->fs.Contents("data/gen/1/db/MEMSTORE");
    node_ = std::make_unique<ReplicaNode>();
    Write(log_, 10, /*flush=*/true);
    node_->fs.SetContents("data/gen/1/db/MEMSTORE", store);
    EXPECT_THAT(Open(LiveControl(log_)), ReasonIs("state_mismatch"));
  }
}

TEST_F(GenerationTest, TheLogOverrulesControlsHistory) {
  Write(log_, 10, /*flush=*/true);
  Control control = LiveControl(log_);
  control.history = {{1, 1, 99}};
  TOWLINE_ASSERT_OK_AND_ASSIGN(auto generation, Open(control));
  EXPECT_EQ(generation->history_at_open(), log_.history());
}

TEST_F(GenerationTest, AStoreThatLacksItsSnapshotIsRefused) {
  Control control = LiveControl(log_);
  control.base = log_.PositionAt(5);
  control.exact_from = control.base;
  control.watermark = 5;
  EXPECT_THAT(Open(control), ReasonIs("store_behind"));
}

}  // namespace
}  // namespace towline::test
