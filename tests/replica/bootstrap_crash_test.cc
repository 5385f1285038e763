// Power loss at every call of a long load: many chunks and commits, a snapshot that is lost, the log behind it, the
// switch. From each state the node gets where it was going.

#include <string>

#include "absl/strings/str_cat.h"

#include "common/failpoint.h"
#include "tests/replica/resume_fixture.h"

namespace towline::test {
namespace {

class BootstrapCrashTest : public ResumeFixture {
 protected:
  // What is wrong with the directory after a power loss; empty = nothing: it opens with the old state, or with the new
  // one, which is then exact.
  std::string WrongAfterCrash(SimFileSystem& disk) {
    ReplicaNode after(&disk);
    if (const absl::Status opened = after.Open(); !opened.ok()) return opened.ToString();
    const Control control = after.control().Get();
    const Lsn applied = after.applied_lsn();
    if (control.generation == 1) return applied < 10 ? absl::StrCat("applied ", applied) : "";
    if (control.generation != 2) return absl::StrCat("generation ", control.generation);
    if (applied < control.exact_from.lsn) {
      return absl::StrCat("applied ", applied, ", exact from ", control.exact_from.lsn);
    }
    return "";
  }

  // What is wrong with what becomes of it.
  std::string WrongInTheEnd(SimFileSystem& disk) {
    ReplicaNode after(&disk);
    Script(after);
    after.Start();
    if (!after.RunUntil([&] { return after.applied_lsn() >= kLogEnd; })) {
      return absl::StrCat("stuck: ", after.status().message);
    }
    const auto snapshot = after.live->state().Snapshot();
    const auto digest = (*snapshot)->Digest();
    if (digest->sum != expected_.sum) return "another state";
    after.RunSteps(2);
    if (disk.Names("data/gen").size() != 1) return "leftovers";
    return "";
  }

  // Runs the bootstrap; at every call, and for every `step`-th to the end, looks what a power loss would leave.
  void RunWithCrashes(int step) {
    messages_ = 14;
    AttachAndFallBehind();
    expected_ = DigestOf(log_, kLogEnd);
    std::vector<std::unique_ptr<SimFileSystem>> disks;
    int calls = 0;
    node_->fs.SetAfterCall([&] {
      ForEachCrashState(node_->fs, 1, [&](SimFileSystem& crashed) {
        ++states_;
        Note(WrongAfterCrash(crashed));
      });
      if (calls++ % step != 0) return;
      disks.push_back(node_->fs.CloneAfterCrash(CrashProfile::kStrict, 1));
      disks.push_back(node_->fs.CloneAfterCrash(CrashProfile::kAdversary, calls));
    });
    bool lost = false;
    ASSERT_TRUE(node_->RunUntil([&] {
      if (!lost && streams().size() == 1 && streams()[0]->inbox.unread() == 0) {
        LoseSnapshot();
        messages_ = 0;
        lost = true;
      }
      return node_->applied_lsn() >= kLogEnd;
    }));
    node_->RunSteps(2);
    node_->fs.SetAfterCall(nullptr);
    for (const std::unique_ptr<SimFileSystem>& disk : disks) Note(WrongInTheEnd(*disk));
  }

  void Note(const std::string& wrong) {
    if (!wrong.empty()) wrong_.push_back(wrong);
  }

  StateDigest expected_;
  int states_ = 0;
  std::vector<std::string> wrong_;
};

TEST_F(BootstrapCrashTest, EveryCrashStateHoldsOneWholeStateAndConverges) {
  RunWithCrashes(1);
  EXPECT_THAT(wrong_, ::testing::IsEmpty());
  EXPECT_GT(states_, 200);
  ExpectHoldsLog();
  EXPECT_GT(node_->control().Get().exact_from.lsn, node_->control().Get().base.lsn);  // it rolled
}

TEST_F(BootstrapCrashTest, EveryCrashStateOfFilesHoldsOneWholeStateAndConverges) {
  files_ = true;
  RunWithCrashes(1);
  EXPECT_THAT(wrong_, ::testing::IsEmpty());
  EXPECT_GT(states_, 100);
  ExpectHoldsLog();
  EXPECT_EQ(node_->control().Get().base.lsn, kSecondRead);  // of the newer snapshot, which is exact
  EXPECT_EQ(node_->control().Get().exact_from.lsn, kSecondRead);
}

class PlantedLoadFaultTest : public BootstrapCrashTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(PlantedLoadFaultTest, IsCaught) {
  const FailpointScope fault(GetParam());
  RunWithCrashes(2);
  EXPECT_FALSE(wrong_.empty());
}

INSTANTIATE_TEST_SUITE_P(Kinds, PlantedLoadFaultTest,
                         ::testing::Values("replica_journal_early", "replica_switch_early"));

}  // namespace
}  // namespace towline::test
