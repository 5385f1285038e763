// Every row of the recovery table for logs, by name. The one for names is in recovery_files_test.cc.
//
// Method   A log of known records is damaged by hand, then opened. Offsets come from the format: a record of 9000 bytes
//          takes 9056, seven of them fill a segment of 64 KiB.

#include <functional>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/known_log.h"
#include "wal/inspect.h"
#include "wal/recovery_table.h"

namespace towline::wal::test {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAreArray;
using ::towline::test::IsOk;
using ::towline::test::ReasonIs;
using ::towline::test::StatusIs;

// --- The log as a whole ---

struct LogCase {
  std::string row;
  std::string name;
  std::function<void(Scenario&)> prepare;
};

void PrintTo(const LogCase& tested, std::ostream* os) { *os << tested.row << " " << tested.name; }

void Corrupt(Scenario& s, const std::string& file, uint64_t offset, Lsn lsn) {
  s.file = file;
  s.offset = offset;
  s.lsn = lsn;
}

std::vector<LogCase> SealedCases() {
  const std::string row = "sealed_damaged";
  return {
      {row, "FooterFlipped",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.FlipBit(SegmentPath(8), (kSegment - kSector + 20) * 8);
         Corrupt(s, SegmentPath(8), kSegment - kSector, 8);
       }},
      {row, "HeaderFlipped",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.FlipBit(SegmentPath(1), 400 * 8);
         Corrupt(s, SegmentPath(1), 0, 1);
       }},
      {row, "FooterOfAnotherLife",
       [](Scenario& s) {
         BuildLog(s.fs);
         SimFileSystem other;
         BuildLog(other, 2);
         Change(s.fs, SegmentPath(1), kSegment - kSector, other.Contents(SegmentPath(1)).substr(kSegment - kSector));
         Corrupt(s, SegmentPath(1), kSegment - kSector, 1);
       }},
      {row, "SegmentMissing",
       [](Scenario& s) {
         BuildLog(s.fs);
         RemoveFile(s.fs, SegmentPath(8));
         Corrupt(s, SegmentPath(15), 0, 8);
       }},
      {row, "OldestMissing",
       [](Scenario& s) {
         BuildLog(s.fs);
         RemoveFile(s.fs, SegmentPath(1));
         Corrupt(s, SegmentPath(8), 0, 1);
       }},
      {row, "ForeignCluster",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.cluster_id = "ffffffffffffffffffffffff";
         Corrupt(s, SegmentPath(1), 0, 1);
       }},
      {row, "LaterGeneration",
       [](Scenario& s) {
         RecoveryInputs inputs = Inputs();
         inputs.generation = 2;
         BuildLog(s.fs, 1, inputs);
         Corrupt(s, SegmentPath(1), 0, 1);
       }},
      {row, "UnknownVersion",
       [](Scenario& s) {
         BuildLog(s.fs);
         Change(s.fs, SegmentPath(8), 8, std::string("\x02\0\0\0", 4));
         Corrupt(s, SegmentPath(8), 0, 8);
       }},
      {row, "FileShorter",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.SetContents(SegmentPath(1), s.fs.Contents(SegmentPath(1)).substr(0, kSegment - 1));
         Corrupt(s, SegmentPath(1), 0, 1);
       }},
      {row, "SegmentOfAnotherLog",
       [](Scenario& s) {
         BuildLog(s.fs);
         SimFileSystem other;
         Node node(other, 2);
         ASSERT_THAT(node.Open(), IsOk());
         ASSERT_THAT(node.Append({kPayload - 1}), IsOk());
         AppendTo(node, kLast);
         s.fs.SetContents(SegmentPath(8), other.Contents(SegmentPath(8)));
         Corrupt(s, SegmentPath(8), 0, 8);
       }},
      {row, "WrongName",
       [](Scenario& s) {
         BuildLog(s.fs);
         ASSERT_THAT(s.fs.Rename(SegmentPath(8), SegmentPath(9)), IsOk());
         Corrupt(s, SegmentPath(9), 0, 9);
       }},
      {row, "AnotherBase",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.base.chain = 5;
         Corrupt(s, SegmentPath(1), 0, 1);
       }},
      {row, "InFrontOfTheBase",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.base.lsn = 3;
         Corrupt(s, SegmentPath(1), 0, 1);
       }},
  };
}

std::vector<LogCase> RefusedCases() {
  return {
      {"newest_header_damaged", "Flipped",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.FlipBit(SegmentPath(15), 85 * 8);
         Corrupt(s, SegmentPath(15), 0, 15);
       }},
      {"newest_header_damaged", "FileShorter",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.SetContents(SegmentPath(15), s.fs.Contents(SegmentPath(15)).substr(0, 3 * kFrame));
         Corrupt(s, SegmentPath(15), 0, 15);
       }},
      {"newest_header_damaged", "FileEmpty",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.SetContents(SegmentPath(15), "");
         Corrupt(s, SegmentPath(15), 0, 15);
       }},
      {"below_watermark", "SlotKnowsMore",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.watermarks = {{"control", 7}, {"slot:r1", kLast + 1}, {"store", 9}};
         Corrupt(s, SegmentPath(15), OffsetOf(kLast + 1, 15), kLast + 1);
       }},
      {"below_watermark", "LaterStampKnowsMore",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.FlipBit(SegmentPath(15), (OffsetOf(17, 15) + 3000) * 8);
         Corrupt(s, SegmentPath(15), OffsetOf(17, 15), 17);
       }},
      {"below_watermark", "LaterStampKnowsMoreThoughItsPayloadIsTorn",
       [](Scenario& s) {
         BuildLog(s.fs);
         // 19 is damaged, and 20, which proves that 19 was durable, is not whole either.
         s.fs.FlipBit(SegmentPath(15), (OffsetOf(19, 15) + 20) * 8);
         s.fs.FlipBit(SegmentPath(15), (OffsetOf(20, 15) + 3000) * 8);
         Corrupt(s, SegmentPath(15), OffsetOf(19, 15), 19);
       }},
      {"below_watermark", "SealedSegmentsKnowMore",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.first_retained = kLast + 2;
         Corrupt(s, SegmentPath(15), OffsetOf(kLast + 1, 15), kLast + 1);
       }},
      {"below_watermark", "EverythingIsGone",
       [](Scenario& s) {
         s.inputs.watermarks = {{"control", 1}};
         Corrupt(s, kDirectory, 0, 1);
       }},
      {"newest_footer_contradicted", "FrameMissing",
       [](Scenario& s) {
         BuildLog(s.fs);
         RemoveFile(s.fs, SegmentPath(15));
         Change(s.fs, SegmentPath(8), OffsetOf(14, 8), std::string(kFrame, '\0'));
         Corrupt(s, SegmentPath(8), OffsetOf(14, 8), 14);
       }},
  };
}

std::vector<LogCase> AcceptedCases() {
  return {
      {"no_segment", "Fresh", [](Scenario& s) { s.end = 0; }},
      {"no_segment", "BehindABase",
       [](Scenario& s) {
         s.inputs.base = {3, 33, 500, 0x1234};
         s.inputs.watermarks = {{"store", 500}};
         s.end = 500;
       }},
      {"newest_clean", "AsItWas", [](Scenario& s) { BuildLog(s.fs); }},
      {"newest_clean", "FullWatermark",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.watermarks = {{"control", kLast}};
       }},
      {"newest_clean", "NoRecordInTheNewest",
       [](Scenario& s) {
         Node node(s.fs);
         ASSERT_THAT(node.Open(), IsOk());
         s.end = 0;
       }},
      {"newest_clean", "NoiseBehindTheEnd",
       [](Scenario& s) {
         BuildLog(s.fs);
         const uint64_t end = OffsetOf(kLast + 1, 15);
         Change(s.fs, SegmentPath(15), end, Noise(kSegment - end));
       }},
      {"newest_clean", "FramesOfAnotherLifeBehindTheEnd",
       [](Scenario& s) {
         BuildLog(s.fs);
         SimFileSystem other;
         BuildLog(other, 2);
         const uint64_t end = OffsetOf(kLast + 1, 15);
         // A full segment: the next frame in it would follow ours but for its salt, and there is a footer.
         Change(s.fs, SegmentPath(15), end, other.Contents(SegmentPath(8)).substr(end));
       }},
      {"newest_clean", "CopiesOfItsOwnRecordsInsideTheLast",
       [](Scenario& s) {
         Node node(s.fs);
         ASSERT_THAT(node.Open(), IsOk());
         AppendTo(node, 2);
         // A record whose payload holds the log in front of it, frame alignment included; then its header is torn.
         const std::string log = s.fs.Contents(SegmentPath(1)).substr(kSector, 2 * kFrame);
         GroupBuilder builder(node.spool->end());
         builder.Add(RecordType::kBatch, 1, 3000, log, 0);
         ASSERT_THAT(node.spool->Append(builder.Finish()), IsOk());
         Change(s.fs, SegmentPath(1), OffsetOf(3, 1), std::string(kSector, '\0'));
         s.end = 2;
       }},
      {"newest_footer", "SuccessorMissing",
       [](Scenario& s) {
         BuildLog(s.fs);
         RemoveFile(s.fs, SegmentPath(15));
         s.end = 14;
       }},
      {"newest_torn", "PayloadOfTheLast",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.FlipBit(SegmentPath(15), (OffsetOf(20, 15) + 3000) * 8);
         s.end = 19;
         s.quarantined = kFrame;
       }},
      {"newest_torn", "HoleInTheLastGroup",
       [](Scenario& s) {
         Node node(s.fs);
         ASSERT_THAT(node.Open(), IsOk());
         AppendTo(node, 2);
         ASSERT_THAT(node.Append({kPayload, kPayload, kPayload}), IsOk());
         Change(s.fs, SegmentPath(1), OffsetOf(3, 1), std::string(kFrame, '\0'));
         s.end = 2;
         s.quarantined = 3 * kFrame;
       }},
      {"newest_torn", "TwoHolesInTheLastGroup",
       [](Scenario& s) {
         Node node(s.fs);
         ASSERT_THAT(node.Open(), IsOk());
         AppendTo(node, 1);
         ASSERT_THAT(node.Append({kPayload, kPayload, kPayload, kPayload}), IsOk());
         Change(s.fs, SegmentPath(1), OffsetOf(3, 1) + 4000, std::string(600, '\0'));
         Change(s.fs, SegmentPath(1), OffsetOf(4, 1), Noise(kFrame));
         s.end = 2;
         s.quarantined = 3 * kFrame;
       }},
  };
}

std::vector<LogCase> LogCases() {
  std::vector<LogCase> all = SealedCases();
  for (LogCase& one : RefusedCases()) all.push_back(std::move(one));
  for (LogCase& one : AcceptedCases()) all.push_back(std::move(one));
  return all;
}

const LogRow& RowCalled(const std::string& name) {
  for (const LogRow& row : LogTable()) {
    if (name == row.name) return row;
  }
  ADD_FAILURE() << "no row " << name;
  return LogTable()[0];
}

// Opens the log of the scenario, which must work, and goes on with it.
void ExpectAccepted(Scenario& s, const std::string& row) {
  const std::map<std::string, std::string> before = s.fs.AllContents();
  Node node(s.fs, 7);
  ASSERT_THAT(node.Open(SmallOptions(), s.inputs), IsOk());
  EXPECT_EQ(node.report.row, row);
  EXPECT_EQ(node.report.end.lsn, s.end);
  EXPECT_EQ(node.report.end, node.spool->end());
  EXPECT_EQ(node.report.quarantined_bytes, s.quarantined);
  const Lsn first = s.inputs.base.lsn + 1;
  TOWLINE_ASSERT_OK_AND_ASSIGN(std::vector<ReadRecord> records, ReadAll(*node.spool, first));
  ASSERT_EQ(records.size(), s.end - s.inputs.base.lsn);
  for (const ReadRecord& record : records) EXPECT_EQ(record.payload, PayloadOf(record.lsn, kPayload));

  if (s.quarantined > 0) {
    ASSERT_TRUE(s.fs.HasFile(node.report.quarantine_file));
    EXPECT_TRUE(absl::StartsWith(node.report.quarantine_file, kQuarantine));
    // The torn bytes, and zeros where they were.
    const Lsn newest = node.spool->end().lsn < 15 ? 1 : 15;
    const uint64_t end = OffsetOf(s.end + 1, newest);
    EXPECT_EQ(s.fs.Contents(node.report.quarantine_file), before.at(SegmentPath(newest)).substr(end, s.quarantined));
    EXPECT_EQ(s.fs.Contents(SegmentPath(newest)).substr(end, s.quarantined), std::string(s.quarantined, '\0'));
  } else {
    EXPECT_EQ(node.report.quarantine_file, "");
  }

  for (int i = 0; i < 10; ++i) ASSERT_THAT(node.Append({kPayload}), IsOk());
  ASSERT_THAT(node.Open(SmallOptions(), s.inputs), IsOk());
  EXPECT_EQ(node.spool->end().lsn, s.end + 10);
  TOWLINE_ASSERT_OK_AND_ASSIGN(records, ReadAll(*node.spool, first));
  EXPECT_EQ(records.size(), s.end + 10 - s.inputs.base.lsn);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const VerifyReport verified, VerifySpool(s.fs, kDirectory));
  EXPECT_THAT(verified.damages, IsEmpty());
}

void ExpectRefused(Scenario& s, const std::string& row) {
  // OpenSpool may create the directory.
  ASSERT_THAT(s.fs.CreateDirectory(kDirectory), IsOk());
  const std::map<std::string, std::string> before = s.fs.AllContents();
  s.fs.ClearLog();
  Node node(s.fs, 7);
  const absl::Status status = node.Open(SmallOptions(), s.inputs);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(status, ReasonIs("wal_corrupt"));
  const ErrorInfo info = GetErrorInfo(status);
  EXPECT_EQ(info.metadata.at("row"), row);
  EXPECT_EQ(info.metadata.at("file"), s.file);
  EXPECT_EQ(info.metadata.at("offset"), std::to_string(s.offset));
  EXPECT_EQ(info.metadata.at("lsn"), std::to_string(s.lsn));
  EXPECT_THAT(info.message, ::testing::HasSubstr(s.file));
  EXPECT_THAT(info.next_action, Not(IsEmpty()));
  // Nothing changed, not even for a moment.
  EXPECT_EQ(s.fs.AllContents(), before);
  EXPECT_THAT(s.fs.log(), IsEmpty());
}

class LogRowTest : public ::testing::TestWithParam<LogCase> {};

TEST_P(LogRowTest, IsReached) {
  const LogCase& tested = GetParam();
  Scenario scenario;
  tested.prepare(scenario);
  ASSERT_FALSE(::testing::Test::HasFatalFailure());
  if (RowCalled(tested.row).verdict == LogVerdict::kCorrupt) {
    ExpectRefused(scenario, tested.row);
  } else {
    ExpectAccepted(scenario, tested.row);
  }
}

INSTANTIATE_TEST_SUITE_P(Recovery, LogRowTest, ::testing::ValuesIn(LogCases()),
                         [](const ::testing::TestParamInfo<LogCase>& tested) {
                           return tested.param.row + "_" + tested.param.name;
                         });

TEST(RecoveryTableTest, EveryLogRowHasACase) {
  std::set<std::string> reached;
  for (const LogCase& tested : LogCases()) reached.insert(tested.row);
  std::vector<std::string> rows;
  for (const LogRow& row : LogTable()) rows.push_back(row.name);
  EXPECT_THAT(reached, UnorderedElementsAreArray(rows));
}

// All combinations of what can be found; MatchLogRow ends the process unless exactly one row matches.
TEST(RecoveryTableTest, ExactlyOneLogRowMatches) {
  for (int bits = 0; bits < 32; ++bits) {
    for (const FooterState footer : {FooterState::kNone, FooterState::kMatches, FooterState::kContradicted}) {
      LogFindings findings;
      if (bits & 1) findings.sealed_damage = absl::DataLossError("damaged");
      if (bits & 2) findings.newest_header_damage = absl::DataLossError("damaged");
      findings.has_segment = (bits & 4) != 0;
      findings.end_lsn = 10;
      findings.watermark = (bits & 8) ? 11 : 10;
      findings.torn = (bits & 16) != 0;
      findings.footer = footer;
      // A footer does not match in front of torn frames.
      if (findings.torn && footer == FooterState::kMatches) continue;
      const LogRow& row = MatchLogRow(findings);
      const bool damaged = (bits & 11) != 0;
      EXPECT_TRUE(!damaged || row.verdict == LogVerdict::kCorrupt) << row.name;
    }
  }
}
}  // namespace
}  // namespace towline::wal::test
