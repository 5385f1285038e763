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

  void AppendShipped(const ShippedBatch& batch) {
    GroupBuilder builder(node.spool->end());
    ASSERT_THAT(ForEachShipped(batch.bytes,
                               [&](const ShippedFrame& frame) { return builder.AddShipped(frame.shipped).status(); }),
                IsOk());
    promise.submitted = batch.after.lsn;
    ASSERT_THAT(node.spool->Append(builder.Finish()), IsOk());
    promise.acked = batch.after.lsn;
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

void ExpectManyStatesAndNoViolation(const Workload& workload) {
  EXPECT_THAT(workload.checker.violations(), IsEmpty());
  // The states are worth something only if they differ.
  for (const char* row : {"newest_clean", "newest_torn", "newest_footer"}) {
    EXPECT_THAT(workload.checker.rows(), Contains(Key(row)));
  }
  ::testing::Test::RecordProperty("states", static_cast<int>(workload.checker.states()));
#ifndef TOWLINE_SANITIZED
  EXPECT_GE(workload.checker.states(), 10000u);
#endif
}

TEST(CrashTest, AcknowledgedRecordsSurviveCrashesWhileAppendingAndRolling) {
  Workload workload(SmallOptions());
  AppendAndRoll(workload);
  ExpectManyStatesAndNoViolation(workload);
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

// A replica appends what an upstream ships: frames with the upstream's terms, in groups of all sizes, of which one may
// be larger than a segment's rest, while its own segments begin elsewhere than the upstream's.
TEST(CrashTest, AcknowledgedRecordsSurviveCrashesOnAReplica) {
  SimFileSystem upstream_fs;
  Node upstream(upstream_fs, 7);
  ASSERT_THAT(upstream.Open(), IsOk());
  ASSERT_THAT(AppendNext(upstream, 60), IsOk());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Cursor> cursor, upstream.spool->NewCursor(1));

  SpoolOptions options = SmallOptions();
  options.spare_segments = 1;
  Workload workload(options);
  workload.Start();
  int round = 0;
  for (const size_t max_bytes : {1, 30000, 1, 12000, 60000, 1, 1, 45000, 20000, 1, 64000, 30000}) {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const ShippedBatch batch, cursor->Next(max_bytes));
    workload.AppendShipped(batch);
    if (++round % 3 == 0) {
      workload.node.RunLoops();
      workload.Prune(workload.promise.acked / 2);
    }
  }
  EXPECT_GT(workload.promise.acked, 40u);
  ExpectManyStatesAndNoViolation(workload);
}

// --- Deliberate faults: the same workload has to find them. ---

void ExpectCaught(const std::string& failpoint) {
  Workload workload(SmallOptions());
  workload.samples = 4;
  workload.fs.ExpectOrderViolations();
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
