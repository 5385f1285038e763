// Every row of the recovery table for names in the directory, by name.
//
// Method   A log of known records is damaged by hand, then opened. Offsets come from the format: a record of 9000 bytes
//          takes 9056, seven of them fill a segment of 64 KiB.

#include <functional>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/known_log.h"
#include "wal/recovery_table.h"

namespace towline::wal::test {
namespace {

using ::testing::UnorderedElementsAreArray;
using ::towline::test::IsOk;
using ::towline::test::RecordingLogger;

// --- Names in the directory ---

struct FileCase {
  std::string row;
  std::string name;
  std::string file;  // under test
  std::function<void(Scenario&)> prepare;
};

void PrintTo(const FileCase& tested, std::ostream* os) { *os << tested.row << " " << tested.name; }

std::vector<FileCase> FileCases() {
  const auto build = [](Scenario& s) { BuildLog(s.fs); };
  const auto with = [](const std::string& path, const std::string& contents) {
    return [=](Scenario& s) {
      BuildLog(s.fs);
      s.fs.SetContents(path, contents);
    };
  };
  return {
      {"segment_removed", "BelowFirstRetained", SegmentPath(1),
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.first_retained = 8;
       }},
      {"segment_removed", "UnreadThoughDamaged", SegmentPath(1),
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.SetContents(SegmentPath(1), "nothing of a segment");
         s.inputs.first_retained = 9;
       }},
      {"segment_sealed", "Kept", SegmentPath(8), build},
      {"segment_sealed", "HoldsTheFirstRetained", SegmentPath(1),
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.first_retained = 7;
       }},
      {"segment_newest", "Kept", SegmentPath(15), build},
      {"segment_newest", "KeptThoughNothingIsRetained", SegmentPath(15),
       [](Scenario& s) {
         BuildLog(s.fs);
         s.inputs.first_retained = kLast + 1;
       }},
      {"index", "KeptThoughGarbage", IndexPath(1), with(IndexPath(1), "garbage")},
      {"index_orphan", "Removed", IndexPath(3), with(IndexPath(3), "garbage")},
      {"index_orphan", "RemovedWithItsSegment", IndexPath(1),
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.SetContents(IndexPath(1), "garbage");
         s.inputs.first_retained = 8;
       }},
      {"spare", "Kept", "wal/spare-9.seg", with("wal/spare-9.seg", Noise(kSegment))},
      {"spare_unusable", "OtherSize", "wal/spare-9.seg", with("wal/spare-9.seg", Noise(kSegment / 2))},
      {"spare_unusable", "SecondName", "wal/spare-9.seg",
       [](Scenario& s) {
         BuildLog(s.fs);
         s.fs.SetContents("wal/spare-9.seg", Noise(kSegment));
         ASSERT_THAT(s.fs.Link("wal/spare-9.seg", "other"), IsOk());
       }},
      {"tmp", "Segment", "wal/tmp-4.seg", with("wal/tmp-4.seg", Noise(kSegment))},
      {"tmp", "Index", "wal/tmp-4.idx", with("wal/tmp-4.idx", "half")},
      {"foreign", "LeftAlone", "wal/README", with("wal/README", "by hand")},
      {"foreign", "AlmostASegment", "wal/000000000000000000001.seg", with("wal/000000000000000000001.seg", "by hand")},
  };
}

class FileRowTest : public ::testing::TestWithParam<FileCase> {};

TEST_P(FileRowTest, IsReached) {
  const FileCase& tested = GetParam();
  Scenario s;
  tested.prepare(s);
  ASSERT_FALSE(::testing::Test::HasFatalFailure());
  const std::string before = s.fs.Contents(tested.file);

  Node node(s.fs);
  RecordingLogger logger;
  SpoolEnvironment env{s.fs, node.clock, node.rng, node.executor, logger};
  TOWLINE_ASSERT_OK_AND_ASSIGN(node.spool,
                               OpenSpool(env, kDirectory, kQuarantine, SmallOptions(), s.inputs, &node.report));
  std::map<std::string, std::string> rows;
  for (const RecordingLogger::Event& event : logger.Events("wal_file")) {
    rows[event.fields.at("file")] = event.fields.at("row");
  }
  ASSERT_EQ(rows[tested.file], tested.row);

  FileVerdict verdict = FileVerdict::kLeave;
  for (const FileRow& row : FileTable()) {
    if (tested.row == row.name) verdict = row.verdict;
  }
  if (verdict == FileVerdict::kRemove) {
    EXPECT_FALSE(s.fs.HasFile(tested.file));
    // Gone for good, should the power fail now.
    EXPECT_FALSE(s.fs.CloneAfterCrash(towline::test::CrashProfile::kStrict, 1)->HasFile(tested.file));
  } else {
    ASSERT_TRUE(s.fs.HasFile(tested.file));
    EXPECT_EQ(s.fs.Contents(tested.file), before);
  }
  EXPECT_EQ(node.spool->end().lsn, kLast);
  EXPECT_THAT(ReadAll(*node.spool, node.spool->stats().first_lsn), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Recovery, FileRowTest, ::testing::ValuesIn(FileCases()),
                         [](const ::testing::TestParamInfo<FileCase>& tested) {
                           return tested.param.row + "_" + tested.param.name;
                         });

TEST(RecoveryTableTest, EveryFileRowHasACase) {
  std::set<std::string> reached;
  for (const FileCase& tested : FileCases()) reached.insert(tested.row);
  std::vector<std::string> rows;
  for (const FileRow& row : FileTable()) rows.push_back(row.name);
  EXPECT_THAT(reached, UnorderedElementsAreArray(rows));
}

TEST(RecoveryTableTest, ExactlyOneFileRowMatches) {
  for (int bits = 0; bits < 16; ++bits) {
    for (const FileKind kind :
         {FileKind::kSegment, FileKind::kIndex, FileKind::kSpare, FileKind::kTmp, FileKind::kOther}) {
      FileFindings findings;
      findings.kind = kind;
      findings.below_first_retained = (bits & 1) != 0;
      findings.newest = (bits & 2) != 0;
      findings.has_segment = (bits & 4) != 0;
      findings.usable = (bits & 8) != 0;
      MatchFileRow(findings);
    }
  }
}

}  // namespace
}  // namespace towline::wal::test
