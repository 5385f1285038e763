// Failing calls: each call of a workload in turn fails, once or for good.
//
// Goal     No acknowledgement without durability, no crash, no hang; a full disk leaves the spool usable, any other
// error
//          stops it for good; and whatever happened, the next start finds everything that was acknowledged.

#include "common/error.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/crash_checker.h"

namespace towline::wal::test {
namespace {

using ::testing::AnyOf;
using ::testing::IsEmpty;
using ::towline::test::IsOk;
using ::towline::test::ReasonIs;
using ::towline::test::SimCall;
using ::towline::test::StatusIs;

const absl::Status kIoError = MakeError(absl::StatusCode::kDataLoss, "io_error", "injected");
const absl::Status kNoSpace = MakeError(absl::StatusCode::kResourceExhausted, "disk_full", "injected");

SpoolOptions OneSpare() {
  SpoolOptions options = SmallOptions();
  options.spare_segments = 1;
  return options;
}

// A workload that goes on after errors as a node would, and remembers what it was promised.
class FailingNode {
 public:
  FailingNode() : node_(fs) {}

  // Opens, appends, rolls, prunes, recycles, opens again. Returns whether every call worked.
  bool Run() {
    if (!Reopen()) return false;
    for (int round = 0; round < 6; ++round) {
      for (const size_t count : {1, 5, 4}) Append(count);
      node_.RunLoops();
      Prune();
      Append(2);
    }
    return Reopen() && failures_ == 0;
  }

  void CheckPromise() {
    fs.ClearFailures();
    node_.Close();
    CrashChecker checker(OneSpare());
    checker.CheckAllCrashes(fs, promise_, 2);
    EXPECT_THAT(checker.violations(), IsEmpty());
  }

  SimFileSystem fs;

 private:
  bool Reopen() {
    RecoveryInputs inputs = Inputs();
    inputs.first_retained = promise_.first_retained;
    const absl::Status opened = node_.Open(OneSpare(), inputs);
    if (opened.ok()) return true;
    // An error of the disk is never called damage.
    EXPECT_THAT(opened, ReasonIs(GetErrorInfo(opened).reason == "disk_full" ? "disk_full" : ErrorOfOpen(opened)));
    fs.ClearFailures();
    EXPECT_THAT(node_.Open(OneSpare(), inputs), IsOk());
    ++failures_;
    return false;
  }

  static std::string ErrorOfOpen(const absl::Status& opened) {
    return GetErrorInfo(opened).reason == "wal_poisoned" ? "wal_poisoned" : "io_error";
  }

  void Append(size_t count) {
    const Lsn before = node_.spool->end().lsn;
    promise_.submitted = std::max(promise_.submitted, before + count);
    const absl::Status appended = AppendNext(node_, count);
    const Lsn after = node_.spool->end().lsn;
    if (appended.ok()) {
      EXPECT_EQ(after, before + count);
      promise_.acked = after;
      return;
    }
    ++failures_;
    EXPECT_EQ(after, before);
    EXPECT_THAT(appended, AnyOf(ReasonIs("wal_poisoned"), ReasonIs("disk_full")));
    const SpoolStats stats = node_.spool->stats();
    EXPECT_EQ(stats.poisoned, GetErrorInfo(appended).reason == "wal_poisoned");
    // Reads go on, and a poisoned spool stays so.
    EXPECT_EQ(stats.durable_lsn, before);
    if (stats.poisoned) {
      EXPECT_THAT(AppendNext(node_, count), ReasonIs("wal_poisoned"));
    } else {
      EXPECT_TRUE(stats.disk_full);
    }
  }

  void Prune() {
    const absl::StatusOr<Lsn> first = node_.spool->Prune(promise_.acked, 0, [this](Lsn lsn) {
      promise_.first_retained = lsn;
      return absl::OkStatus();
    });
    if (!first.ok()) ++failures_;
  }

  Node node_;
  Promise promise_;
  int failures_ = 0;
};

struct Failure {
  const absl::Status& status;
  bool sticky = false;
  bool failed_sync_persists = false;
};

void FailEveryCall(const Failure& failure) {
  for (int64_t n = 1;; ++n) {
    SCOPED_TRACE(absl::StrCat("call ", n, " fails with ", failure.status.ToString(), failure.sticky ? ", sticky" : ""));
    FailingNode workload;
    workload.fs.SetFailedSyncPersists(failure.failed_sync_persists);
    workload.fs.FailCall(n, failure.status, failure.sticky);
    workload.Run();
    const bool beyond = workload.fs.calls() < n;
    workload.CheckPromise();
    ASSERT_FALSE(::testing::Test::HasFailure());
    if (beyond) {
      EXPECT_GT(n, 100);
      return;
    }
  }
}

TEST(ErrorTest, EveryCallFailsOnceWithAnIoError) { FailEveryCall({kIoError, false, false}); }
TEST(ErrorTest, EveryCallFailsOnceThoughTheSyncWorked) { FailEveryCall({kIoError, false, true}); }
TEST(ErrorTest, EveryCallAndAllAfterItFailWithAnIoError) { FailEveryCall({kIoError, true, false}); }
TEST(ErrorTest, EveryCallFailsOnceForLackOfSpace) { FailEveryCall({kNoSpace, false, false}); }
TEST(ErrorTest, EveryCallAndAllAfterItFailForLackOfSpace) { FailEveryCall({kNoSpace, true, false}); }

TEST(ErrorTest, AFailedSyncPoisonsForGood) {
  SimFileSystem fs;
  Node node(fs);
  ASSERT_THAT(node.Open(), IsOk());
  ASSERT_THAT(AppendNext(node, 1), IsOk());
  fs.FailNext(SimCall::kSync, kIoError);
  const absl::Status failed = AppendNext(node, 1);
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(failed, ReasonIs("wal_poisoned"));
  EXPECT_TRUE(node.spool->stats().poisoned);
  EXPECT_EQ(node.spool->end().lsn, 1u);
  EXPECT_THAT(AppendNext(node, 1), ReasonIs("wal_poisoned"));
  EXPECT_THAT(ReadAll(*node.spool, 1), IsOk());
  // The process starts again over the same page cache: what is visible is made durable before it is served.
  ASSERT_THAT(node.Open(), IsOk());
  EXPECT_EQ(node.report.end.lsn, 2u);
  EXPECT_EQ(node.report.rewritten_records, 1u);  // the stamp of record 2 proves record 1
  const std::unique_ptr<SimFileSystem> crashed = fs.CloneAfterCrash(towline::test::CrashProfile::kStrict, 1);
  Node after(*crashed);
  ASSERT_THAT(after.Open(SmallOptions(), Inputs(2)), IsOk());
}

// --- A full disk ---

TEST(ErrorTest, WritesResumeWhenSpaceReturns) {
  SimFileSystem fs;
  Node node(fs);
  ASSERT_THAT(node.Open(), IsOk());
  ASSERT_THAT(AppendNext(node, 6), IsOk());
  fs.SetQuota(100 << 10);  // the present segment, and not a second one
  absl::Status full;
  while ((full = AppendNext(node, 3)).ok()) {
  }
  const Lsn end = node.spool->end().lsn;
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(AppendNext(node, 3), StatusIs(absl::StatusCode::kResourceExhausted));
    EXPECT_THAT(AppendNext(node, 3), ReasonIs("disk_full"));
    EXPECT_TRUE(node.spool->stats().disk_full);
    EXPECT_FALSE(node.spool->stats().poisoned);
  }
  // Even a record that would have fitted has to wait: the footer is written.
  EXPECT_THAT(node.Append({1}), ReasonIs("disk_full"));
  EXPECT_EQ(node.spool->end().lsn, end);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(*node.spool, 1));
  EXPECT_EQ(records.size(), end);

  // A node that starts on the full disk serves what it has.
  ASSERT_THAT(node.Open(), IsOk());
  EXPECT_EQ(node.report.row, "newest_footer");
  EXPECT_EQ(node.spool->end().lsn, end);
  EXPECT_THAT(AppendNext(node, 3), ReasonIs("disk_full"));

  fs.SetQuota(0);
  EXPECT_THAT(AppendNext(node, 3), IsOk());
  EXPECT_FALSE(node.spool->stats().disk_full);
  EXPECT_EQ(node.spool->end().lsn, end + 3);
  ASSERT_THAT(node.Open(), IsOk());
  EXPECT_EQ(node.spool->end().lsn, end + 3);
  EXPECT_THAT(ReadAll(*node.spool, 1), IsOk());
}

TEST(ErrorTest, AFreshSpoolOnAFullDiskSaysSo) {
  SimFileSystem fs;
  fs.SetQuota(16 << 10);
  Node node(fs);
  EXPECT_THAT(node.Open(), ReasonIs("disk_full"));
  fs.SetQuota(0);
  EXPECT_THAT(node.Open(), IsOk());
}

TEST(ErrorTest, AFullDiskLeavesNoTmpFileBehind) {
  SimFileSystem fs;
  Node node(fs);
  ASSERT_THAT(node.Open(), IsOk());
  fs.SetQuota(100 << 10);
  while (AppendNext(node, 3).ok()) {
  }
  for (const auto& [path, contents] : fs.AllContents()) EXPECT_EQ(path, SegmentPath(1));
}

TEST(ErrorTest, SparesAreMadeAgainWhenSpaceReturns) {
  SimFileSystem fs;
  Node node(fs);
  fs.SetQuota(100 << 10);
  ASSERT_THAT(node.Open(OneSpare(), Inputs()), IsOk());
  ASSERT_THAT(AppendNext(node, 1), IsOk());
  node.executor.AdvanceTime(10000000);
  EXPECT_FALSE(fs.HasFile("wal/spare-2.seg"));
  EXPECT_EQ(fs.AllContents().size(), 1u);
  fs.SetQuota(0);
  node.executor.AdvanceTime(10000000);
  EXPECT_EQ(fs.AllContents().size(), 2u);
  EXPECT_THAT(AppendNext(node, 1), IsOk());
}

}  // namespace
}  // namespace towline::wal::test
