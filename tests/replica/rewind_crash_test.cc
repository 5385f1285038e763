// Power loss at every call of a rewind: the node opens with one line of history, what it gave up is in quarantine, and
// it gets where it was going.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/failpoint.h"
#include "common/history.h"
#include "replica/log_history.h"
#include "tests/replica/rewind_fixture.h"

namespace towline::test {
namespace {

class RewindCrashTest : public RewindFixture {
 protected:
  // What is wrong with the directory after a power loss; empty = nothing.
  std::string WrongAfterCrash(SimFileSystem& disk) {
    ReplicaNode after(&disk);
    after.env->rewind_options = node_->env->rewind_options;
    if (const absl::Status opened = after.Open(); !opened.ok()) return opened.ToString();
    const bool is_new = after.live->number() == 2;
    const LogMaker& line = is_new ? new_line_ : old_line_;
    const Lsn lsn = after.durable_lsn();
    if (lsn < (is_new ? kCommonLsn : kOldEnd) || lsn > line.end_lsn()) return absl::StrCat("the log ends at ", lsn);
    if (after.applied_lsn() != lsn) return absl::StrCat("applied ", after.applied_lsn(), " of ", lsn);
    History known = after.control().Get().history;
    for (const HistoryEntry& entry : after.live->history_at_open()) MergeEntry(entry, &known);
    if (known != CutAt(line.history(), lsn)) return absl::StrCat("history ", FormatHistory(known), " at ", lsn);
    if (is_new && Quarantined(disk) != DiscardedLsns()) return "records are lost";
    return WrongState(after, line);
  }

  // What is wrong with what becomes of it.
  std::string WrongInTheEnd(SimFileSystem& disk) {
    const std::unique_ptr<SimFileSystem> copy = disk.Clone();
    if (const absl::Status opened = ReplicaNode(copy.get()).Open(); !opened.ok()) return opened.ToString();
    ReplicaNode after(&disk);
    Prepare(after);
    after.Start(Options());
    const int snapshots = snapshots_;
    if (!after.RunUntil([&] { return after.live->state().applied() == new_line_.PositionAt(kNewEnd); })) {
      return absl::StrCat("stuck: ", after.status().message);
    }
    if (const std::string wrong = WrongState(after, new_line_); !wrong.empty()) return wrong;
    if (snapshots_ != snapshots) return "a snapshot was loaded";
    if (Quarantined(disk) != DiscardedLsns()) return "records are lost in the end";
    after.RunSteps(8);
    if (disk.Names("data/gen").size() != 1) return "leftovers";
    return "";
  }

  void RunWithCrashes(int step) {
    Diverge();
    std::vector<std::unique_ptr<SimFileSystem>> disks;
    int calls = 0;
    node_->fs.SetAfterCall([&] {
      ForEachCrashState(node_->fs, 1, [&](SimFileSystem& crashed) {
        ++states_;
        Note(WrongAfterCrash(crashed));
      });
      if (calls++ % step != 0) return;
      disks.push_back(node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1));
      disks.push_back(node_->fs.CloneAfterCrash(CrashProfile::kAdversary, static_cast<uint64_t>(calls)));
      disks.push_back(node_->fs.Clone());
    });
    ASSERT_TRUE(RunUntilApplied(kNewEnd));
    node_->RunSteps(8);
    node_->fs.SetAfterCall(nullptr);
    for (const std::unique_ptr<SimFileSystem>& disk : disks) {
      const std::string wrong = WrongInTheEnd(*disk);
      Note(wrong.empty() ? "" : absl::StrCat("in the end: ", wrong));
    }
  }

  void Note(const std::string& wrong) {
    if (!wrong.empty()) wrong_.push_back(wrong);
  }

  int states_ = 0;
  std::vector<std::string> wrong_;
};

TEST_F(RewindCrashTest, EveryCrashStateHoldsOneLineAndConverges) {
  RunWithCrashes(1);
  EXPECT_THAT(wrong_, ::testing::IsEmpty());
  EXPECT_GT(states_, 150);
}

class PlantedRewindFaultTest : public RewindCrashTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(PlantedRewindFaultTest, IsCaught) {
  node_->fs.ExpectOrderViolations();
  const FailpointScope fault(GetParam());
  RunWithCrashes(4);
  EXPECT_FALSE(wrong_.empty());
}

INSTANTIATE_TEST_SUITE_P(Kinds, PlantedRewindFaultTest,
                         ::testing::Values("quarantine_skip_sync", "rewind_skip_quarantine", "wal_cut_skip_sync",
                                           "rewind_switch_early"));

}  // namespace
}  // namespace towline::test
