// A replica that holds records of a line that its upstream does not go on with.

#ifndef TOWLINE_TESTS_REPLICA_REWIND_FIXTURE_H_
#define TOWLINE_TESTS_REPLICA_REWIND_FIXTURE_H_

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "common/history.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/replica/replica_node.h"
#include "tests/replica/snapshot_maker.h"
#include "tests/support/status_matchers.h"
#include "wal/quarantine_reader.h"

namespace towline::test {

inline constexpr Lsn kCheckpointLsn = 20;
inline constexpr Lsn kCommonLsn = 25;
inline constexpr Lsn kOldEnd = 40;
inline constexpr Lsn kNewEnd = 50;

class RewindFixture : public ::testing::Test {
 protected:
  RewindFixture() {
    MakeLines();
    node_ = std::make_unique<ReplicaNode>();
    Prepare(*node_);
  }
  ~RewindFixture() override { node_.reset(); }

  // Both lines are the same up to kCommonLsn, where the new one begins term 2.
  void MakeLines() {
    for (LogMaker* line : {&old_line_, &new_line_}) {
      line->StartTerm(1, 11);
      line->Members({"p1", "r1"});
      while (line->end_lsn() < kCommonLsn) PutLarge(*line, 'a');
    }
    old_line_.Members({"p1", "r1", "r2"});
    while (old_line_.end_lsn() < kOldEnd) PutLarge(old_line_, 'b');
    new_line_.StartTerm(2, 22);
    while (new_line_.end_lsn() < kNewEnd) PutLarge(new_line_, 'c');
  }
  // A few of them fill a segment.
  static void PutLarge(LogMaker& line, char fill) {
    line.Put("key-" + std::to_string(line.end_lsn() % 17), std::string(9000, fill) + std::to_string(line.end_lsn()));
  }

  void Prepare(ReplicaNode& node) {
    node.env->rewind_options.interval_micros = interval_micros_;
    node.env->rewind_options.held_bytes_max = 1 << 30;
    node.upstream.on_pull = [this](FakePull& pull) { Answer(pull); };
    node.upstream.on_snapshot = [this](FakeSnapshot& snapshot) {
      ++snapshots_;
      for (v1::FetchSnapshotResponse& message : MakeSnapshot(*line_, line_->end_lsn(), 100'000)) {
        snapshot.inbox.Send(std::move(message));
      }
    };
  }

  // Records come to the log one by one, so that it has many segments.
  static ReplicaOptions Options() {
    ReplicaOptions options = TestReplicaOptions();
    options.group_bytes_max = 1;
    return options;
  }

  // As the planner would.
  void Answer(FakePull& pull) {
    const v1::PullStart& start = pull.start();
    offered_.push_back(start.oldest_rewind_lsn());
    History theirs;
    for (const v1::HistoryEntry& entry : start.history()) {
      theirs.push_back({static_cast<Term>(entry.term()), entry.start_lsn(), entry.term_id()});
    }
    const Lsn common = LastCommonLsn(theirs, start.lsn(), line_->history(), line_->end_lsn());
    if (common == start.lsn()) {
      pull.SendPartial(*line_);
      const Lsn last = std::min(line_->end_lsn(), send_to_);
      for (Lsn lsn = start.lsn() + 1; lsn <= last; ++lsn) pull.SendFrames(line_->Batch(lsn, lsn));
    } else if (start.oldest_rewind_lsn() != 0 && start.oldest_rewind_lsn() <= common) {
      pull.SendRewind(*line_, told_common_ == 0 ? common : told_common_);
    } else {
      pull.SendDecision(*line_, v1::RESUME_DECISION_FULL, "diverged");
    }
  }

  // The replica holds the old line, and a checkpoint at kCheckpointLsn unless there are to be none.
  void Diverge() {
    send_to_ = kCheckpointLsn;
    node_->Start(Options());
    ASSERT_TRUE(RunUntilApplied(kCheckpointLsn));
    if (interval_micros_ > 0) {
      ASSERT_THAT(node_->live->checkpoints().MakeNow(), IsOk());
      ASSERT_EQ(node_->live->checkpoints().oldest(), kCheckpointLsn);
    }
    node_->pull().inbox.Close(absl::OkStatus());
    send_to_ = kNewEnd;
    ASSERT_TRUE(RunUntilApplied(kOldEnd));
    ASSERT_EQ(node_->control().Get().members.members.size(), 3u);
    line_ = &new_line_;
    node_->pull().inbox.Close(absl::OkStatus());
  }

  bool RunUntilApplied(Lsn lsn) {
    return node_->RunUntil(
        [&] { return node_->applied_lsn() == lsn && node_->live->state().applied() == line_->PositionAt(lsn); });
  }

  void ExpectHolds(const LogMaker& line) { EXPECT_EQ(WrongState(*node_, line), ""); }
  static std::string WrongState(ReplicaNode& node, const LogMaker& line) {
    const Position applied = node.live->state().applied();
    if (applied != line.PositionAt(applied.lsn)) return "another position";
    const auto snapshot = node.live->state().Snapshot();
    const auto digest = (*snapshot)->Digest();
    return digest->sum == DigestOf(line, applied.lsn).sum ? "" : "another state";
  }

  // LSNs of the records in quarantine, and 0 for what is no record.
  static std::vector<Lsn> Quarantined(FileSystem& fs) {
    std::vector<Lsn> lsns;
    const auto files = wal::ListQuarantine(fs, "data/quarantine");
    EXPECT_THAT(files, IsOk());
    for (const wal::QuarantineFile& file : *files) {
      if (file.torn) continue;  // of an append that was cut by a power loss
      const auto rest = wal::DumpQuarantineFile(fs, file, [&](const wal::DumpedFrame& frame) {
        lsns.push_back(frame.frame.header.lsn);
        return absl::OkStatus();
      });
      if (!rest.ok() || *rest != 0) lsns.push_back(0);
    }
    return lsns;
  }
  static std::vector<Lsn> DiscardedLsns() {
    std::vector<Lsn> lsns;
    for (Lsn lsn = kCommonLsn + 1; lsn <= kOldEnd; ++lsn) lsns.push_back(lsn);
    return lsns;
  }

  LogMaker old_line_;
  LogMaker new_line_;
  const LogMaker* line_ = &old_line_;  // of the upstream
  Lsn send_to_ = kNewEnd;
  Lsn told_common_ = 0;  // 0 = what is right
  int64_t interval_micros_ = 3600ll * 1'000'000;
  int snapshots_ = 0;
  std::vector<Lsn> offered_;  // oldest_rewind_lsn of each start
  std::unique_ptr<ReplicaNode> node_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_REPLICA_REWIND_FIXTURE_H_
