// The beginning of a log as a log of its own.
//
// Method   SimFileSystem, one thread. Records of 9000 bytes: seven fill a segment. Every cut of a known log is opened,
//          read, appended to, and its original is looked at again.

#include "wal/log_cut.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/known_log.h"

namespace towline::wal::test {
namespace {

using ::towline::test::CrashProfile;
using ::towline::test::IsOk;
using ::towline::test::ReasonIs;
using ::towline::test::StatusIs;

constexpr char kCopy[] = "cut";

class LogCutTest : public ::testing::Test {
 protected:
  LogCutTest() {
    BuildLog(fs_);
    EXPECT_THAT(fs_.CreateDirectory(kCopy), IsOk());
    EXPECT_THAT(fs_.SyncDirectory("/"), IsOk());
  }

  // The copy, opened as generation 2 whose watermark is its last record.
  static absl::Status OpenCopy(Node& node, Lsn last, Lsn first_retained = 0) {
    RecoveryInputs inputs = Inputs(last);
    inputs.generation = 2;
    inputs.first_retained = first_retained;
    return node.Open(SmallOptions(), inputs);
  }

  static std::vector<ReadRecord> Records(Spool& spool, Lsn from) {
    auto records = ReadAll(spool, from);
    EXPECT_THAT(records, IsOk());
    return records.ok() ? *records : std::vector<ReadRecord>();
  }

  SimFileSystem fs_;
};

TEST_F(LogCutTest, EveryCutIsALogThatEndsThereAndGoesOn) {
  const std::map<std::string, std::string> before = fs_.AllContents();
  for (Lsn last = 1; last <= kLast; ++last) {
    SCOPED_TRACE(last);
    const std::unique_ptr<SimFileSystem> fs = fs_.Clone();
    ASSERT_THAT(CutLog(*fs, kDirectory, kCopy, 1, last), IsOk());
    // A power loss takes nothing of it.
    const std::unique_ptr<SimFileSystem> disk = fs->CloneAfterCrash(CrashProfile::kStrict, 1);
    {
      Node original(*disk, kDirectory, kQuarantine);
      ASSERT_THAT(original.Open(), IsOk());
      Node copy(*disk, kCopy, kQuarantine);
      ASSERT_THAT(OpenCopy(copy, last), IsOk());
      EXPECT_EQ(copy.spool->end(), *original.spool->EndAt(last));
      std::vector<ReadRecord> expected = Records(*original.spool, 1);
      expected.resize(last);
      EXPECT_EQ(Records(*copy.spool, 1), expected);
      // Another line: the same LSNs, other records.
      for (int i = 0; i < 9; ++i) ASSERT_THAT(copy.Append({5000, 3}), IsOk());
      copy.Close();
      ASSERT_THAT(OpenCopy(copy, last + 18), IsOk());
      EXPECT_EQ(copy.spool->end().lsn, last + 18);
      EXPECT_EQ(copy.report.quarantined_bytes, 0u);
    }
    // The original has not noticed.
    for (const auto& [path, contents] : before) EXPECT_EQ(disk->Contents(path), contents) << path;
    Node original(*disk, kDirectory, kQuarantine);
    ASSERT_THAT(original.Open(), IsOk());
    EXPECT_EQ(Records(*original.spool, 1).size(), kLast);
  }
}

TEST_F(LogCutTest, WhatIsWholeIsNotCopied) {
  ASSERT_THAT(CutLog(fs_, kDirectory, kCopy, 1, 16), IsOk());
  EXPECT_EQ(*fs_.LinkCount(SegmentPath(1)), 2u);
  EXPECT_EQ(*fs_.LinkCount(SegmentPath(8)), 2u);
  EXPECT_EQ(*fs_.LinkCount(SegmentPath(15)), 1u);
}

TEST_F(LogCutTest, ItBeginsWithTheSegmentOfTheFirstRecord) {
  ASSERT_THAT(CutLog(fs_, kDirectory, kCopy, 9, 16), IsOk());
  EXPECT_EQ(*fs_.LinkCount(SegmentPath(1)), 1u);
  Node copy(fs_, kCopy, kQuarantine);
  ASSERT_THAT(OpenCopy(copy, 16, 8), IsOk());
  EXPECT_EQ(copy.spool->stats().first_lsn, 8u);
}

TEST_F(LogCutTest, ASegmentWithTwoNamesIsNeverRecycled) {
  ASSERT_THAT(CutLog(fs_, kDirectory, kCopy, 1, 16), IsOk());
  Node copy(fs_, kCopy, kQuarantine);
  SpoolOptions options = SmallOptions();
  options.spare_segments = 2;
  RecoveryInputs inputs = Inputs(16);
  inputs.generation = 2;
  ASSERT_THAT(copy.Open(options, inputs), IsOk());
  ASSERT_THAT(copy.spool->Prune(15, 0, [](Lsn) { return absl::OkStatus(); }), IsOk());
  for (int i = 0; i < 30; ++i) ASSERT_THAT(copy.Append({9000}), IsOk());
  Node original(fs_, kDirectory, kQuarantine);
  ASSERT_THAT(original.Open(), IsOk());
  EXPECT_EQ(Records(*original.spool, 1).size(), kLast);
}

TEST_F(LogCutTest, WhatIsNotThereIsReported) {
  EXPECT_THAT(CutLog(fs_, kCopy, "other", 1, 16), ReasonIs("wal_removed"));
  RemoveFile(fs_, SegmentPath(1));
  EXPECT_THAT(CutLog(fs_, kDirectory, kCopy, 3, 16), ReasonIs("wal_removed"));
  Change(fs_, SegmentPath(15), OffsetOf(16, 15) + 100, Noise(8));
  EXPECT_THAT(CutLog(fs_, kDirectory, kCopy, 8, 16), ReasonIs("wal_damaged"));
}

TEST_F(LogCutTest, AFullDiskIsReported) {
  fs_.FailNext(::towline::test::SimCall::kWrite, absl::ResourceExhaustedError("full"), kCopy);
  EXPECT_THAT(CutLog(fs_, kDirectory, kCopy, 1, 16), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(LogCutTest, ACopyThatIsNotSyncedIsCaught) {
  const ::towline::FailpointScope fault("wal_cut_skip_sync");
  ASSERT_THAT(CutLog(fs_, kDirectory, kCopy, 1, 16), IsOk());
  const std::unique_ptr<SimFileSystem> disk = fs_.CloneAfterCrash(CrashProfile::kStrict, 1);
  Node copy(*disk, kCopy, kQuarantine);
  EXPECT_THAT(OpenCopy(copy, 16), ReasonIs("wal_corrupt"));
}

}  // namespace
}  // namespace towline::wal::test
