// What is acknowledged survives every crash.
//
// Goal     No acknowledged record is ever lost, no crash is ever taken for damage, what is recovered is a prefix of
// what
//          was written, and the log goes on behind it.
// Method   After each call of a workload that changes the disk, the power fails in many ways (profiles of
//          SimFileSystem); each state is recovered, read, appended to, and crashed once more, also in the middle of the
//          recovery. Deliberate faults show that the checks can fail.

#include <string>

#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/crash_checker.h"

namespace towline::wal::test {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::towline::test::IsOk;

#ifdef TOWLINE_SANITIZED
constexpr int kSamples = 4;
#else
constexpr int kSamples = 60;
#endif

// One spool whose every call and every acknowledgement is followed by all crashes.
class Workload {
 public:
  explicit Workload(SpoolOptions options) : node(fs), checker(options), options_(options) {}

  void Start() {
    ASSERT_THAT(node.Open(options_, Inputs()), IsOk());
    node.spool->AddDurableListener([this](Lsn lsn) {
      promise.acked = lsn;
      checker.CheckAllCrashes(fs, promise, samples);
    });
    fs.SetAfterCall([this] { checker.CheckAllCrashes(fs, promise, samples); });
  }

  void Append(size_t count) {
    promise.submitted += count;
    const Lsn before = node.spool->end().lsn;
    ASSERT_THAT(AppendNext(node, count), IsOk());
    ASSERT_EQ(node.spool->end().lsn, before + count);
    promise.acked = before + count;
  }

  void Prune(Lsn first_needed) {
    ASSERT_THAT(node.spool->Prune(first_needed, 0,
                                  [this](Lsn first) {
                                    promise.first_retained = first;
                                    return absl::OkStatus();
                                  }),
                IsOk());
  }

  SimFileSystem fs;
  Node node;
  CrashChecker checker;
  Promise promise;
  int samples = kSamples;

 private:
  const SpoolOptions options_;
};

// Opens, appends groups of all sorts and rolls over three segments.
void AppendAndRoll(Workload& workload) {
  workload.Start();
  for (const size_t count : {1, 2, 1, 4, 3, 1, 5, 2, 6, 1, 1, 7}) workload.Append(count);
  ASSERT_GE(workload.node.spool->stats().segments, 3u);
}

// Appends through pruned and recycled segments, with spares and indexes being made.
void PruneAndRecycle(Workload& workload) {
  workload.Start();
  for (int round = 0; round < 6; ++round) {
    workload.Append(3);
    workload.Append(6);
    workload.node.RunLoops();
    workload.Prune(workload.promise.acked);
  }
  ASSERT_GT(workload.promise.first_retained, 30u);
}

TEST(CrashTest, AcknowledgedRecordsSurviveCrashesWhileAppendingAndRolling) {
  Workload workload(SmallOptions());
  AppendAndRoll(workload);
  EXPECT_THAT(workload.checker.violations(), IsEmpty());
  // The states are worth something only if they differ.
  for (const char* row : {"newest_clean", "newest_torn", "newest_footer"}) {
    EXPECT_THAT(workload.checker.rows(), Contains(Key(row)));
  }
  RecordProperty("states", static_cast<int>(workload.checker.states()));
#ifndef TOWLINE_SANITIZED
  EXPECT_GE(workload.checker.states(), 10000u);
#endif
}

TEST(CrashTest, AcknowledgedRecordsSurviveCrashesWhilePruningAndRecycling) {
  SpoolOptions options = SmallOptions();
  options.spare_segments = 1;
  Workload workload(options);
  PruneAndRecycle(workload);
  EXPECT_THAT(workload.checker.violations(), IsEmpty());
  RecordProperty("states", static_cast<int>(workload.checker.states()));
#ifndef TOWLINE_SANITIZED
  EXPECT_GE(workload.checker.states(), 10000u);
#endif
}

// --- Deliberate faults: the same workload has to find them. ---

void ExpectCaught(const std::string& failpoint) {
  Workload workload(SmallOptions());
  workload.samples = 4;
  {
    FailpointScope scope(failpoint);
    AppendAndRoll(workload);
  }
  EXPECT_THAT(workload.checker.violations(), Not(IsEmpty())) << failpoint << " went unnoticed";
}

TEST(CrashTest, ASkippedSyncIsNoticed) { ExpectCaught("wal_skip_sync"); }
TEST(CrashTest, AnEarlyAcknowledgementIsNoticed) { ExpectCaught("wal_ack_early"); }
TEST(CrashTest, ASkippedDirectorySyncIsNoticed) { ExpectCaught("wal_skip_directory_sync"); }

}  // namespace
}  // namespace towline::wal::test
