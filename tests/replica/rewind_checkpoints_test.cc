// Which rewind checkpoints are made, kept, found again and given up, and what they hold of the log.
//
// Method   A generation on a simulated disk with the in-memory store; the clock is moved by hand.

#include "replica/rewind_checkpoints.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/log_maker.h"
#include "tests/replica/replica_node.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kSecond = 1'000'000;
constexpr char kCheckpoints[] = "data/gen/1/checkpoints";

class RewindCheckpointsTest : public ::testing::Test {
 protected:
  RewindCheckpointsTest() : node_(std::make_unique<ReplicaNode>()) {
    log_.StartTerm(1, 11);
    Options().interval_micros = 60 * kSecond;
    Options().held_bytes_max = 1 << 20;
    node_->env->applier_options.flush_interval_micros = 100'000 * kSecond;  // tests flush by themselves
  }

  RewindOptions& Options() { return node_->env->rewind_options; }

  void Open(Lsn exact_from = 0) {
    Control control = NewReplicaControl();
    control.cluster_id = log_.cluster_id();
    control.generation = 1;
    control.history = log_.history();
    if (exact_from != 0) control.exact_from = log_.PositionAt(exact_from);
    auto opened = Generation::Open(*node_->env, control, {}, first_retained_, nullptr);
    ASSERT_THAT(opened, IsOk());
    generation_ = *std::move(opened);
  }

  // Adds records, applied and, if `flush`, persisted.
  void Write(int count, bool flush = false, size_t bytes = 0) {
    const Lsn first = generation_->spool().end().lsn + 1;
    while (log_.end_lsn() < first + static_cast<Lsn>(count) - 1) log_.Put("key", std::string(bytes, 'v'));
    for (Lsn lsn = first; lsn <= log_.end_lsn(); ++lsn) {
      ASSERT_THAT(generation_->AppendAndApply(log_.Group(lsn, lsn), log_.history(), nullptr), IsOk());
    }
    node_->executor.RunUntilIdle();
    if (!flush) return;
    ASSERT_THAT(generation_->state().store().Flush(true), IsOk());
  }

  void Pass(int64_t seconds) { node_->executor.AdvanceTime(seconds * kSecond); }

  std::vector<Lsn> Kept() {
    std::vector<Lsn> lsns;
    for (const RewindCheckpoint& checkpoint : generation_->checkpoints().stats().kept) lsns.push_back(checkpoint.lsn);
    return lsns;
  }

  // A round: some records, and time enough for a checkpoint of them.
  void Round() {
    Write(10, /*flush=*/true);
    Pass(61);
  }

  // Removes log that nobody holds, as the source does.
  Lsn Prune() {
    auto first = generation_->spool().Prune(log_.end_lsn() + 1, 0, [this](Lsn lsn) {
      first_retained_ = lsn;
      return absl::OkStatus();
    });
    EXPECT_THAT(first, IsOk());
    return first.ok() ? *first : 0;
  }

  Lsn first_retained_ = 0;
  LogMaker log_;
  std::unique_ptr<ReplicaNode> node_;
  std::unique_ptr<Generation> generation_;
};

TEST_F(RewindCheckpointsTest, TheFirstOneComesSoonAndTheOthersAtIntervals) {
  Open();
  Pass(100);
  EXPECT_THAT(Kept(), IsEmpty());
  Write(5);
  Pass(2);
  EXPECT_THAT(Kept(), ElementsAre(5));
  Write(5, /*flush=*/true);
  Pass(57);
  EXPECT_THAT(Kept(), ElementsAre(5));
  Pass(5);
  EXPECT_THAT(Kept(), ElementsAre(5, 10));
  EXPECT_EQ(generation_->checkpoints().oldest(), 5u);
  EXPECT_EQ(generation_->checkpoints().NewestUpTo(9), 5u);
  EXPECT_EQ(generation_->checkpoints().NewestUpTo(10), 10u);
  EXPECT_EQ(generation_->checkpoints().NewestUpTo(4), 0u);
}

TEST_F(RewindCheckpointsTest, ManyBytesOfLogDoNotWaitForTheInterval) {
  Options().log_bytes = 100'000;
  Open();
  Write(5);
  Pass(2);
  Write(5, /*flush=*/true, 30'000);
  Pass(2);
  EXPECT_THAT(Kept(), ElementsAre(5, 10));
}

TEST_F(RewindCheckpointsTest, OneWaitsForTheFlushOfTheStoreButNotForEver) {
  Open();
  Write(5);
  Pass(2);
  Write(5);  // in memory only
  Pass(62);
  EXPECT_THAT(Kept(), ElementsAre(5));
  Pass(60);
  EXPECT_THAT(Kept(), ElementsAre(5, 10));
}

TEST_F(RewindCheckpointsTest, AnIdleNodeMakesNoMore) {
  Open();
  Write(5);
  Pass(1000);
  EXPECT_EQ(generation_->checkpoints().stats().made, 1u);
  node_->fs.ClearLog();
  Pass(10'000);
  EXPECT_THAT(node_->fs.log(), IsEmpty());
}

TEST_F(RewindCheckpointsTest, NoneIsMadeWhereTheStateIsAMixture) {
  log_.Puts(19);
  Open(/*exact_from=*/15);
  ASSERT_THAT(generation_->AppendAndApply(log_.Group(1, 10), log_.history(), nullptr), IsOk());
  Pass(5);
  EXPECT_THAT(Kept(), IsEmpty());
  ASSERT_THAT(generation_->checkpoints().MakeNow(), IsOk());
  EXPECT_THAT(Kept(), IsEmpty());
  ASSERT_THAT(generation_->AppendAndApply(log_.Group(11, 16), log_.history(), nullptr), IsOk());
  Pass(5);
  EXPECT_THAT(Kept(), ElementsAre(16));
}

TEST_F(RewindCheckpointsTest, KeptAreTheNewestAndTheOneThatAllHave) {
  Open();
  for (int i = 0; i < 3; ++i) Round();
  EXPECT_THAT(Kept(), ElementsAre(10, 30));  // nothing is known: the oldest may be needed
  generation_->checkpoints().SetCommonLsn(31);
  Round();
  EXPECT_THAT(Kept(), ElementsAre(30, 40));
  Round();  // 40 is above what all have
  EXPECT_THAT(Kept(), ElementsAre(30, 50));
  generation_->checkpoints().SetCommonLsn(0);  // not known any more: what was known holds
  generation_->checkpoints().SetCommonLsn(100);
  Round();
  EXPECT_THAT(Kept(), ElementsAre(50, 60));
}

TEST_F(RewindCheckpointsTest, TheyAreThereAfterARestartAndAPowerLoss) {
  Open();
  for (int i = 0; i < 3; ++i) Round();
  generation_.reset();
  SeededRng rng(1);
  node_->fs.Crash(CrashProfile::kStrict, rng);
  Open();
  EXPECT_THAT(Kept(), ElementsAre(10, 30));
  Write(1);
  Pass(5);
  EXPECT_THAT(Kept(), ElementsAre(10, 30));  // the interval counts from the start
}

TEST_F(RewindCheckpointsTest, WhatIsOfNoUseIsRemovedAtOpen) {
  Open();
  Round();
  generation_.reset();
  for (const char* name : {"making/MEMSTORE", "5.removed/MEMSTORE", "foreign", "0/MEMSTORE", "007/MEMSTORE",
                           "99/MEMSTORE", "18446744073709551616/MEMSTORE"}) {
    node_->fs.SetContents(JoinPath(kCheckpoints, name), "x");
  }
  ASSERT_THAT(node_->fs.CreateDirectory(JoinPath(kCheckpoints, "7")), IsOk());
  Open();
  EXPECT_THAT(Kept(), ElementsAre(10));
  EXPECT_THAT(node_->fs.Names(kCheckpoints), ElementsAre("10"));
  EXPECT_EQ(node_->logger.Events("rewind_checkpoint_removed").size(), 8u);
}

TEST_F(RewindCheckpointsTest, TheLogBehindTheOldestStays) {
  Open();
  Write(10, true, 9000);
  Pass(2);
  ASSERT_THAT(Kept(), ElementsAre(10));
  Write(30, true, 9000);
  const Lsn first = Prune();
  EXPECT_GT(first, 1u);
  EXPECT_LE(first, 11u);
  generation_->checkpoints().Remove(10, "a test says so");
  EXPECT_THAT(Kept(), IsEmpty());
  EXPECT_GT(Prune(), 11u);
  EXPECT_EQ(generation_->checkpoints().stats().given_up, 1u);
}

TEST_F(RewindCheckpointsTest, OneThatWouldHoldTooMuchLogIsGivenUp) {
  Options().held_bytes_max = 200'000;
  Open();
  Write(10, true);
  Pass(2);
  Write(30, true, 9000);
  Pass(2);
  EXPECT_THAT(Kept(), IsEmpty());
  EXPECT_GT(Prune(), 11u);
  Pass(50);
  EXPECT_THAT(Kept(), IsEmpty());  // not at once again
  Pass(20);
  EXPECT_THAT(Kept(), ElementsAre(40));
  // Its log is gone at the next start: so is the checkpoint.
  Write(30, true, 9000);
  generation_.reset();
  Options().interval_micros = 0;
  first_retained_ = 60;
  Open();
  EXPECT_THAT(Kept(), IsEmpty());
}

TEST_F(RewindCheckpointsTest, OldOnesAreGivenUpWhileTheLogGrows) {
  Options().age_max_micros = 100 * kSecond;
  Open();
  Round();  // at 10
  Round();
  EXPECT_THAT(Kept(), ElementsAre(10, 20));
  Pass(1000);  // nothing is written
  EXPECT_THAT(Kept(), ElementsAre(10, 20));
  Round();
  EXPECT_THAT(Kept(), ElementsAre(30));
}

TEST_F(RewindCheckpointsTest, AFullDiskTakesThem) {
  Options().disk_warn_ratio = 0.8;
  Options().disk_guard_ratio = 0.9;
  node_->fs.SetQuota(10'000'000);
  Open();
  Round();
  Round();
  ASSERT_THAT(Kept(), ElementsAre(10, 20));
  node_->fs.SetContents("filler", std::string(8'000'000, 'x'));
  Round();
  EXPECT_THAT(Kept(), ElementsAre(20));
  node_->fs.SetContents("filler", std::string(8'900'000, 'x'));
  Pass(2);
  EXPECT_THAT(Kept(), IsEmpty());
  node_->fs.SetContents("filler", "");
  Pass(62);
  EXPECT_THAT(Kept(), ElementsAre(30));
}

TEST_F(RewindCheckpointsTest, AFailureIsToldOnceAndHeals) {
  Open();
  Write(5);
  for (int i = 0; i < 3; ++i) {
    node_->fs.FailNext(SimCall::kRename, absl::ResourceExhaustedError("full"), "making");
    Pass(2);
  }
  node_->fs.ClearFailures();
  EXPECT_EQ(node_->logger.Events("rewind_checkpoint_not_made").size(), 1u);
  Pass(2);
  EXPECT_THAT(Kept(), ElementsAre(5));
}

TEST_F(RewindCheckpointsTest, AHoldKeepsThemAsTheyAre) {
  Open();
  for (int i = 0; i < 2; ++i) Round();
  generation_->checkpoints().SetCommonLsn(100);
  {
    const RewindCheckpoints::Hold hold(generation_->checkpoints());
    for (int i = 0; i < 2; ++i) Round();
    EXPECT_THAT(Kept(), ElementsAre(10, 20));
  }
  Pass(2);
  EXPECT_THAT(Kept(), ElementsAre(20, 40));
}

// Whatever a power loss leaves: each checkpoint that is found is a whole state of the log.
TEST_F(RewindCheckpointsTest, EveryCrashStateHoldsWholeOnes) {
  Open();
  Write(10, /*flush=*/true);
  int states = 0;
  node_->fs.SetAfterCall([&] {
    ForEachCrashState(node_->fs, 4, [&](SimFileSystem& crashed) {
      ++states;
      ReplicaNode after(&crashed);
      Control control = NewReplicaControl();
      control.cluster_id = log_.cluster_id();
      control.generation = 1;
      control.history = log_.history();
      auto opened = Generation::Open(*after.env, control, {}, 0, nullptr);
      ASSERT_THAT(opened, IsOk());
      for (const RewindCheckpoint& checkpoint : (*opened)->checkpoints().stats().kept) {
        auto store = after.stores.Open((*opened)->checkpoints().Path(checkpoint.lsn));
        ASSERT_THAT(store, IsOk());
        auto state = StateStore::Open(*std::move(store));
        ASSERT_THAT(state, IsOk());
        EXPECT_EQ((*state)->applied(), log_.PositionAt(checkpoint.lsn));
      }
    });
  });
  generation_->checkpoints().SetCommonLsn(1);
  Pass(2);
  Write(10, /*flush=*/true);
  Pass(61);
  Write(10, /*flush=*/true);
  Pass(61);
  node_->fs.SetAfterCall(nullptr);
  EXPECT_EQ(generation_->checkpoints().stats().made, 3u);
  EXPECT_GT(states, 100);
}

}  // namespace
}  // namespace towline::test
