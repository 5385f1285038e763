// The offline readers: what they say of whole, damaged and moving directories, and that they change nothing.

#include "wal/inspect.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/executor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"
#include "wal/quarantine_reader.h"

namespace towline::wal::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::towline::test::IsOk;
using ::towline::test::IsOkAndHolds;
using ::towline::test::ReasonIs;
using ::towline::test::StatusIs;

constexpr size_t kPayload = 9000;
constexpr uint64_t kFrame = 9056;
constexpr Lsn kLast = 17;  // segments begin with 1, 8, 15

class InspectTest : public ::testing::Test {
 protected:
  InspectTest() : node_(fs_) {
    EXPECT_THAT(node_.Open(), IsOk());
    AppendTo(kLast);
    node_.RunLoops();
    fs_.ClearLog();
  }

  void AppendTo(Lsn last) {
    while (node_.spool->end().lsn < last) ASSERT_THAT(node_.Append({kPayload}), IsOk());
  }

  static DumpRange RangeOf(Lsn first, Lsn last) {
    DumpRange range;
    range.first = first;
    if (last != 0) range.last = last;
    return range;
  }

  // The LSNs that a dump gives. `last` 0 = to the end.
  std::vector<Lsn> Dumped(Lsn first, Lsn last, absl::Status* status = nullptr) {
    std::vector<Lsn> lsns;
    const absl::Status dumped = DumpSpool(fs_, kDirectory, RangeOf(first, last), [&](const DumpedFrame& frame) {
      const Lsn lsn = frame.frame.header.lsn;
      EXPECT_EQ(frame.frame.payload, PayloadOf(lsn, kPayload));
      EXPECT_EQ(frame.stamp, lsn - 1);
      const Lsn segment = (lsn - 1) / 7 * 7 + 1;
      EXPECT_EQ(frame.file, SegmentPath(segment));
      EXPECT_EQ(frame.offset, 512 + (lsn - segment) * kFrame);
      lsns.push_back(lsn);
      return absl::OkStatus();
    });
    if (status == nullptr) {
      EXPECT_THAT(dumped, IsOk());
    } else {
      *status = dumped;
    }
    return lsns;
  }

  VerifyReport Verify() {
    const absl::StatusOr<VerifyReport> report = VerifySpool(fs_, kDirectory);
    EXPECT_THAT(report, IsOk());
    return *report;
  }

  SimFileSystem fs_;
  Node node_;
};

TEST_F(InspectTest, TellsEverySegmentOfARunningNode) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const SpoolInfo info, InspectSpool(fs_, kDirectory));
  ASSERT_THAT(info.segments, SizeIs(3));
  const SegmentInfo& first = info.segments[0];
  EXPECT_EQ(first.file, SegmentPath(1));
  EXPECT_EQ(first.cluster_id, kClusterId);
  EXPECT_EQ(first.generation, 1u);
  EXPECT_EQ(first.first_lsn, 1u);
  EXPECT_EQ(first.last_lsn, 7u);
  EXPECT_EQ(first.records, 7u);
  EXPECT_EQ(first.file_bytes, 64u << 10);
  EXPECT_EQ(first.used_bytes, 512 + 7 * kFrame);
  EXPECT_TRUE(first.sealed);
  EXPECT_TRUE(first.index_present);
  EXPECT_EQ(first.first_time_us, 1000);
  EXPECT_EQ(first.last_time_us, 7000);
  EXPECT_EQ(first.damage, "");
  const SegmentInfo& newest = info.segments[2];
  EXPECT_EQ(newest.first_lsn, 15u);
  EXPECT_EQ(newest.last_lsn, kLast);
  EXPECT_EQ(newest.used_bytes, 512 + 3 * kFrame);
  EXPECT_FALSE(newest.sealed);
  EXPECT_FALSE(newest.index_present);
  EXPECT_EQ(newest.damage, "");
  EXPECT_EQ(info.tail_bytes, 0u);
  EXPECT_EQ(info.spares, 0u);

  const VerifyReport report = Verify();
  EXPECT_EQ(report.segments, 3u);
  EXPECT_EQ(report.records, kLast);
  EXPECT_EQ(report.bytes, kLast * kFrame);
  EXPECT_EQ(report.first_lsn, 1u);
  EXPECT_EQ(report.last_lsn, kLast);
  EXPECT_THAT(report.damages, IsEmpty());
  EXPECT_THAT(fs_.log(), IsEmpty());  // nothing was changed
}

TEST_F(InspectTest, ALogThatEndsBelowWhatWasDurableIsDamaged) {
  const Lsn end = node_.spool->end().lsn;
  TOWLINE_ASSERT_OK_AND_ASSIGN(const VerifyReport whole, VerifySpool(fs_, kDirectory, end));
  EXPECT_THAT(whole.damages, IsEmpty());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const VerifyReport cut, VerifySpool(fs_, kDirectory, end + 1));
  ASSERT_THAT(cut.damages, SizeIs(1));
  EXPECT_EQ(cut.damages[0].lsn, end + 1);
  EXPECT_EQ(cut.damages[0].what, absl::StrCat("the log ends at LSN ", end, ", but LSN ", end + 1, " was durable"));
}

TEST_F(InspectTest, AnEmptySpoolHasOneEmptySegment) {
  SimFileSystem fs;
  Node node(fs);
  ASSERT_THAT(node.Open(), IsOk());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const SpoolInfo info, InspectSpool(fs, kDirectory));
  ASSERT_THAT(info.segments, SizeIs(1));
  EXPECT_EQ(info.segments[0].last_lsn, 0u);
  EXPECT_EQ(info.segments[0].records, 0u);
  EXPECT_EQ(info.segments[0].first_time_us, 0);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const VerifyReport report, VerifySpool(fs, kDirectory));
  EXPECT_EQ(report.records, 0u);
  EXPECT_THAT(report.damages, IsEmpty());
  EXPECT_THAT(InspectSpool(fs, "nowhere"), StatusIs(absl::StatusCode::kNotFound));
}

// A write that is under way, or one that a crash tore, is the tail: no damage.
TEST_F(InspectTest, WhatDoesNotParseBehindTheEndIsTheTail) {
  std::string contents = fs_.Contents(SegmentPath(15));
  std::string torn = contents.substr(512 + 2 * kFrame, kFrame);  // some frame's bytes, as if of the next group
  torn[4000] = static_cast<char>(torn[4000] ^ 1);
  torn.resize(6000);
  torn += "end";
  contents.replace(512 + 3 * kFrame, torn.size(), torn);
  fs_.SetContents(SegmentPath(15), contents);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const SpoolInfo info, InspectSpool(fs_, kDirectory));
  EXPECT_EQ(info.tail_bytes, 6003u);
  EXPECT_EQ(info.segments[2].last_lsn, kLast);
  EXPECT_EQ(info.segments[2].damage, "");
  EXPECT_THAT(Verify().damages, IsEmpty());
  EXPECT_THAT(Dumped(16, 0), ElementsAre(16, 17));
}

TEST_F(InspectTest, AFrameThatWasProvedDurableIsDamageNotTail) {
  fs_.FlipBit(SegmentPath(15), (512 + 3000) * 8);  // LSN 15; the stamp of 17 says that 16 was durable
  const VerifyReport report = Verify();
  ASSERT_THAT(report.damages, SizeIs(1));
  EXPECT_EQ(report.damages[0].file, SegmentPath(15));
  EXPECT_EQ(report.damages[0].offset, 512u);
  EXPECT_EQ(report.damages[0].lsn, 15u);
  EXPECT_THAT(report.damages[0].what, HasSubstr("LSN 16 was durable"));
  EXPECT_EQ(report.last_lsn, 14u);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const SpoolInfo info, InspectSpool(fs_, kDirectory));
  EXPECT_THAT(info.segments[2].damage, HasSubstr("durable"));
  absl::Status status;
  EXPECT_THAT(Dumped(14, 0, &status), ElementsAre(14));
  EXPECT_THAT(status, ReasonIs("wal_damaged"));
}

TEST_F(InspectTest, VerifyReportsEveryDamagedSegmentAndGoesOn) {
  fs_.FlipBit(SegmentPath(1), (512 + 2 * kFrame + 100) * 8);  // LSN 3
  fs_.FlipBit(SegmentPath(8), ((64 << 10) - 500) * 8);        // the footer
  fs_.FlipBit(IndexPath(8), 100);                             // not looked at without the footer
  VerifyReport report = Verify();
  ASSERT_THAT(report.damages, SizeIs(2));
  EXPECT_EQ(report.damages[0].file, SegmentPath(1));
  EXPECT_EQ(report.damages[0].offset, 512 + 2 * kFrame);
  EXPECT_EQ(report.damages[0].lsn, 3u);
  EXPECT_EQ(report.damages[1].file, SegmentPath(8));
  EXPECT_EQ(report.damages[1].offset, (64u << 10) - 512);
  EXPECT_EQ(report.segments, 3u);
  EXPECT_EQ(report.records, kLast - 1);  // all but LSN 3
  TOWLINE_ASSERT_OK_AND_ASSIGN(const SpoolInfo info, InspectSpool(fs_, kDirectory));
  EXPECT_THAT(info.segments[1].damage, HasSubstr("footer"));
  EXPECT_FALSE(info.segments[1].sealed);
  EXPECT_EQ(info.segments[1].last_lsn, 14u);
}

TEST_F(InspectTest, VerifyReportsWhatLinksSegments) {
  ASSERT_THAT(fs_.Remove(SegmentPath(8)), IsOk());
  const VerifyReport report = Verify();
  ASSERT_THAT(report.damages, SizeIs(1));
  EXPECT_EQ(report.damages[0].file, SegmentPath(15));
  EXPECT_EQ(report.damages[0].lsn, 8u);
  EXPECT_THAT(report.damages[0].what, HasSubstr("gap"));
  absl::Status status;
  EXPECT_THAT(Dumped(5, 0, &status), ElementsAre(5, 6, 7));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(InspectTest, VerifyComparesIndexesWithTheirSegments) {
  fs_.SetContents(IndexPath(1), fs_.Contents(IndexPath(8)));
  VerifyReport report = Verify();
  ASSERT_THAT(report.damages, SizeIs(1));
  EXPECT_EQ(report.damages[0].file, IndexPath(1));
  EXPECT_EQ(report.records, kLast);
  ASSERT_THAT(fs_.Remove(IndexPath(1)), IsOk());
  EXPECT_THAT(Verify().damages, IsEmpty());  // an index may be absent
}

TEST_F(InspectTest, DumpGivesTheRangeAskedFor) {
  EXPECT_THAT(Dumped(6, 9), ElementsAre(6, 7, 8, 9));
  EXPECT_THAT(Dumped(15, 15), ElementsAre(15));
  EXPECT_THAT(Dumped(0, 2), ElementsAre(1, 2));
  EXPECT_THAT(Dumped(17, 0), ElementsAre(17));
  EXPECT_THAT(Dumped(18, 0), IsEmpty());
  EXPECT_THAT(Dumped(1, 0), SizeIs(kLast));
  const auto stop = [](const DumpedFrame&) { return absl::CancelledError("enough"); };
  EXPECT_THAT(DumpSpool(fs_, kDirectory, RangeOf(1, 0), stop), StatusIs(absl::StatusCode::kCancelled));
}

// Record n has commit time 1000 * n.
TEST_F(InspectTest, DumpGivesTheTimesAskedFor) {
  const auto times = [&](int64_t since_us, int64_t until_us) {
    DumpRange range;
    range.since_us = since_us;
    range.until_us = until_us;
    std::vector<Lsn> lsns;
    EXPECT_THAT(DumpSpool(fs_, kDirectory, range,
                          [&](const DumpedFrame& frame) {
                            lsns.push_back(frame.frame.header.lsn);
                            return absl::OkStatus();
                          }),
                IsOk());
    return lsns;
  };
  EXPECT_THAT(times(6000, 9000), ElementsAre(6, 7, 8));
  EXPECT_THAT(times(7001, 8001), ElementsAre(8));
  EXPECT_THAT(times(14000, 15001), ElementsAre(14, 15));
  EXPECT_THAT(times(0, 1000), IsEmpty());
  EXPECT_THAT(times(17001, 99000), IsEmpty());
  // Records that are not asked for are not read: damage in them does not matter.
  fs_.FlipBit(SegmentPath(1), 3000 * 8);
  EXPECT_THAT(times(8000, 9000), ElementsAre(8));
}

TEST_F(InspectTest, DumpReadsInFrontOfDamageAndBehindIt) {
  fs_.FlipBit(SegmentPath(1), (512 + 2 * kFrame + 100) * 8);  // LSN 3
  EXPECT_THAT(Dumped(1, 2), ElementsAre(1, 2));
  EXPECT_THAT(Dumped(4, 6), ElementsAre(4, 5, 6));
  absl::Status status;
  EXPECT_THAT(Dumped(2, 6, &status), ElementsAre(2));
  EXPECT_THAT(status, ReasonIs("wal_damaged"));
  // Without the index everything in front has to be read.
  ASSERT_THAT(fs_.Remove(IndexPath(1)), IsOk());
  EXPECT_THAT(Dumped(4, 6, &status), IsEmpty());
  EXPECT_THAT(status, ReasonIs("wal_damaged"));
}

TEST_F(InspectTest, VerifyGoesOnBehindDamageInsideASegment) {
  fs_.FlipBit(SegmentPath(1), (512 + 1 * kFrame + 100) * 8);  // LSN 2
  fs_.FlipBit(SegmentPath(1), (512 + 4 * kFrame + 100) * 8);  // LSN 5
  const VerifyReport report = Verify();
  ASSERT_THAT(report.damages, SizeIs(2));
  EXPECT_EQ(report.damages[0].lsn, 2u);
  EXPECT_EQ(report.damages[1].lsn, 5u);
  EXPECT_EQ(report.records, kLast - 2);
}

// --- Quarantine ---

TEST_F(InspectTest, ATornTailCanBeReadFromQuarantine) {
  // One group; a hole in its second frame loses the frames behind it too.
  ASSERT_THAT(node_.Append({300, 400, 500}), IsOk());
  node_.Close();
  const uint64_t second = 512 + 3 * kFrame + 360;
  for (uint64_t byte = second; byte < second + 8; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      if ((fs_.Contents(SegmentPath(15))[byte] >> bit) & 1) fs_.FlipBit(SegmentPath(15), byte * 8 + bit);
    }
  }
  ASSERT_THAT(node_.Open(), IsOk());
  ASSERT_EQ(node_.report.row, "newest_torn");
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<QuarantineFile> files, ListQuarantine(fs_, kQuarantine));
  ASSERT_THAT(files, SizeIs(1));
  EXPECT_TRUE(files[0].torn);
  EXPECT_EQ(files[0].path, node_.report.quarantine_file);
  EXPECT_EQ(files[0].bytes, node_.report.quarantined_bytes);
  std::vector<Lsn> lsns;
  const auto skipped = DumpQuarantineFile(fs_, files[0], [&](const DumpedFrame& frame) {
    lsns.push_back(frame.frame.header.lsn);
    EXPECT_EQ(frame.frame.payload, PayloadOf(20, 500));
    EXPECT_EQ(frame.stamp, 17u);
    EXPECT_EQ(frame.offset, 456u);  // behind the frame of 400 bytes
    return absl::OkStatus();
  });
  EXPECT_THAT(lsns, ElementsAre(20));
  EXPECT_THAT(skipped, IsOkAndHolds(456u));
}

TEST_F(InspectTest, GivenUpRecordsCanBeReadFromQuarantine) {
  const std::shared_ptr<FrameGroup> group = MakeGroup(LogEnd(), {10, 0, 33});
  std::string shipped;
  for (size_t i = 0; i < 3; ++i) shipped.append(group->shipped(i).data(), group->shipped(i).size());
  fs_.SetContents("quarantine/diverged-1-1.frames", shipped + "rest");
  fs_.SetContents("quarantine/diverged-1-1.frames.tmp", "half");
  fs_.SetContents("quarantine/notes", "mine");
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<QuarantineFile> files, ListQuarantine(fs_, kQuarantine));
  ASSERT_THAT(files, SizeIs(1));
  EXPECT_FALSE(files[0].torn);
  std::vector<std::string> payloads;
  const auto skipped = DumpQuarantineFile(fs_, files[0], [&](const DumpedFrame& frame) {
    payloads.emplace_back(frame.frame.payload);
    return absl::OkStatus();
  });
  EXPECT_THAT(payloads, ElementsAre(PayloadOf(1, 10), PayloadOf(2, 0), PayloadOf(3, 33)));
  EXPECT_THAT(skipped, IsOkAndHolds(4u));
}

TEST_F(InspectTest, NoQuarantineIsNoError) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<QuarantineFile> files, ListQuarantine(fs_, "nowhere"));
  EXPECT_THAT(files, IsEmpty());
}

// Appends, rolls and prunes go on below the reader; nothing of that is damage.
TEST_F(InspectTest, AMovingDirectoryIsNeverCalledDamaged) {
  const std::unique_ptr<Executor> threads = NewThreadExecutor();
  std::atomic<bool> failed{false};
  Lsn pruned = 1;
  const std::unique_ptr<Loop> writer = threads->Start("writer", [&] {
    const bool ok = node_.Append({100, 5000, 0}).ok() && node_.spool
                                                             ->Prune(node_.spool->end().lsn - 30, 0,
                                                                     [&](Lsn lsn) {
                                                                       pruned = lsn;
                                                                       return absl::OkStatus();
                                                                     })
                                                             .ok();
    if (!ok) failed = true;
    return ok ? StepResult::Again() : StepResult::WaitForWake();
  });
  Lsn last = 0;
  for (int i = 0; i < 200; ++i) {
    const absl::StatusOr<VerifyReport> report = VerifySpool(fs_, kDirectory);
    ASSERT_THAT(report, IsOk());
    ASSERT_THAT(report->damages, IsEmpty()) << report->damages[0].what;
    last = std::max(last, report->last_lsn);
    const absl::StatusOr<SpoolInfo> info = InspectSpool(fs_, kDirectory);
    ASSERT_THAT(info, IsOk());
    for (const SegmentInfo& segment : info->segments) ASSERT_EQ(segment.damage, "");
  }
  writer->Stop();
  EXPECT_FALSE(failed);
  EXPECT_GT(last, pruned / 2);  // it was the living log that was read
}

}  // namespace
}  // namespace towline::wal::test
