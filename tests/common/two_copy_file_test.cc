// Format, choice between the copies, damage. Power loss: two_copy_crash_test.cc.

#include "common/two_copy_file.h"

#include <string>

#include "gtest/gtest.h"
#include "tests/support/format_doc.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline {
namespace {

using test::FormatField;
using test::IsOk;
using test::IsOkAndHolds;
using test::ReasonIs;
using test::SimCall;
using test::SimFileSystem;
using test::StatusIs;
using ::testing::ElementsAre;

constexpr char kDoc[] = "docs/formats/two_copy_v1.md";
constexpr char kGolden[] = "tests/golden/two_copy_v1.hex";
constexpr uint64_t kMagic = 0x314c5443574f5400ull;
constexpr size_t kCapacity = 64;

class TwoCopyFileTest : public ::testing::Test {
 protected:
  TwoCopyFileTest() { EXPECT_THAT(fs_.CreateDirectory("d"), IsOk()); }

  TwoCopyFile MakeFile() { return TwoCopyFile(fs_, "d", "f", kMagic, kCapacity); }

  // What a new reader finds: the payload, or "<absent>" or "<damaged>".
  std::string Found() {
    TwoCopyFile file = MakeFile();
    TwoCopyImage image;
    const absl::StatusOr<TwoCopyState> state = file.Load(&image);
    EXPECT_THAT(state, IsOk());
    if (*state == TwoCopyState::kAbsent) return "<absent>";
    return *state == TwoCopyState::kDamaged ? "<damaged>" : image.payload;
  }

  // Saves "one", "two", "three" as versions 1, 2, 3; copy a holds "three", copy b "two".
  void SaveThree() {
    TwoCopyFile file = MakeFile();
    ASSERT_THAT(file.Save(1, "one"), IsOk());
    ASSERT_THAT(file.Save(2, "two"), IsOk());
    ASSERT_THAT(file.Save(3, "three"), IsOk());
    if (fs_.Contents("d/f.a").substr(kTwoCopyHeaderSize, 5) != "three") {
      const std::string newest = fs_.Contents("d/f.b");
      fs_.SetContents("d/f.b", fs_.Contents("d/f.a"));
      fs_.SetContents("d/f.a", newest);
    }
  }

  SimFileSystem fs_;
};

TEST_F(TwoCopyFileTest, DocumentAndCodeAgree) {
  const auto constants = test::FormatConstants(kDoc);
  EXPECT_EQ(constants.at("header size"), kTwoCopyHeaderSize);
  EXPECT_EQ(constants.at("smallest sequence"), 1u);
  const auto fields = test::FormatFields(kDoc);
  EXPECT_EQ(fields.at("magic"), (FormatField{0, 8}));
  EXPECT_EQ(fields.at("format version"), (FormatField{8, 4}));
  EXPECT_EQ(fields.at("payload length"), (FormatField{12, 4}));
  EXPECT_EQ(fields.at("sequence"), (FormatField{16, 8}));
  EXPECT_EQ(fields.at("payload CRC"), (FormatField{24, 4}));
  EXPECT_EQ(fields.at("header CRC"), (FormatField{28, 4}));
  EXPECT_EQ(test::FormatExample(kDoc), test::ReadGolden(kGolden));
}

TEST_F(TwoCopyFileTest, WritesTheGoldenBytes) {
  TwoCopyFile file = MakeFile();
  ASSERT_THAT(file.Save(1, "------"), IsOk());
  ASSERT_THAT(file.Save(1, "------"), IsOk());
  ASSERT_THAT(file.SaveBoth(1, "towline"), IsOk());
  EXPECT_EQ(file.sequence(), 3u);
  EXPECT_EQ(fs_.Contents("d/f.a"), test::ReadGolden(kGolden));
  EXPECT_EQ(fs_.Contents("d/f.b"), test::ReadGolden(kGolden));
}

TEST_F(TwoCopyFileTest, ReadsTheGoldenBytes) {
  fs_.SetContents("d/f.b", test::ReadGolden(kGolden));
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOkAndHolds(TwoCopyState::kValid));
  EXPECT_EQ(image.payload, "towline");
  EXPECT_EQ(image.version, 1u);
  EXPECT_EQ(image.sequence, 3u);
  EXPECT_EQ(file.sequence(), 3u);
}

TEST_F(TwoCopyFileTest, AbsentEmptyAndAllZeroCopiesAreAbsent) {
  EXPECT_EQ(Found(), "<absent>");
  fs_.SetContents("d/f.a", "");
  EXPECT_EQ(Found(), "<absent>");
  fs_.SetContents("d/f.b", std::string(200000, '\0'));
  EXPECT_EQ(Found(), "<absent>");
  fs_.FlipBit("d/f.b", 199999 * 8);
  EXPECT_EQ(Found(), "<damaged>");
}

TEST_F(TwoCopyFileTest, LoadingWritesNothing) {
  SaveThree();
  fs_.ClearLog();
  EXPECT_EQ(Found(), "three");
  EXPECT_THAT(fs_.log(), ElementsAre());
}

TEST_F(TwoCopyFileTest, FirstSaveMakesBothCopiesAtFullCapacity) {
  TwoCopyFile file = MakeFile();
  fs_.ClearLog();
  ASSERT_THAT(file.Save(1, "one"), IsOk());
  EXPECT_EQ(fs_.Contents("d/f.a").size(), kCapacity);
  EXPECT_EQ(fs_.Contents("d/f.a"), fs_.Contents("d/f.b"));
  EXPECT_THAT(fs_.log(), ElementsAre("create d/f.a.tmp", "truncate d/f.a.tmp", "write d/f.a.tmp", "sync d/f.a.tmp",
                                     "rename d/f.a.tmp d/f.a", "syncdir d", "create d/f.b.tmp", "truncate d/f.b.tmp",
                                     "write d/f.b.tmp", "sync d/f.b.tmp", "rename d/f.b.tmp d/f.b", "syncdir d"));
}

TEST_F(TwoCopyFileTest, LaterSavesAlternateWithOneWriteAndOneSync) {
  TwoCopyFile file = MakeFile();
  ASSERT_THAT(file.Save(1, "one"), IsOk());
  fs_.ClearLog();
  ASSERT_THAT(file.Save(1, "two"), IsOk());
  const std::string first = fs_.log().front() == "write d/f.a" ? "d/f.a" : "d/f.b";
  const std::string second = first == "d/f.a" ? "d/f.b" : "d/f.a";
  EXPECT_THAT(fs_.log(), ElementsAre("write " + first, "sync " + first));
  fs_.ClearLog();
  ASSERT_THAT(file.Save(1, "three"), IsOk());
  ASSERT_THAT(file.Save(1, "four"), IsOk());
  EXPECT_THAT(fs_.log(), ElementsAre("write " + second, "sync " + second, "write " + first, "sync " + first));
  EXPECT_EQ(file.sequence(), 4u);
  EXPECT_EQ(Found(), "four");
}

TEST_F(TwoCopyFileTest, SaveBothSurvivesTheLossOfEitherCopy) {
  SaveThree();
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOk());
  ASSERT_THAT(file.SaveBoth(1, "both"), IsOk());
  for (const char* path : {"d/f.a", "d/f.b"}) {
    const std::string kept = fs_.Contents(path);
    fs_.SetContents(path, "garbage");
    EXPECT_EQ(Found(), "both");
    fs_.SetContents(path, kept);
  }
}

TEST_F(TwoCopyFileTest, EveryBitFlipOfOneCopyFallsBackToTheOther) {
  SaveThree();
  const uint64_t covered = (kTwoCopyHeaderSize + 5) * 8;  // header and "three"
  for (uint64_t bit = 0; bit < kCapacity * 8; ++bit) {
    fs_.FlipBit("d/f.a", bit);
    ASSERT_EQ(Found(), bit < covered ? "two" : "three") << "bit " << bit << " of the newest copy";
    fs_.FlipBit("d/f.a", bit);
  }
  for (uint64_t bit = 0; bit < kCapacity * 8; ++bit) {
    fs_.FlipBit("d/f.b", bit);
    ASSERT_EQ(Found(), "three") << "bit " << bit << " of the older copy";
    fs_.FlipBit("d/f.b", bit);
  }
}

TEST_F(TwoCopyFileTest, EveryCutOfOneCopyFallsBackToTheOther) {
  SaveThree();
  const std::string whole = fs_.Contents("d/f.a");
  for (size_t size = 0; size < whole.size(); ++size) {
    fs_.SetContents("d/f.a", whole.substr(0, size));
    ASSERT_EQ(Found(), size < kTwoCopyHeaderSize + 5 ? "two" : "three") << "cut at " << size;
  }
}

TEST_F(TwoCopyFileTest, DamageWithoutAWholeCopyIsDamaged) {
  SaveThree();
  fs_.FlipBit("d/f.a", 40);
  fs_.FlipBit("d/f.b", 40);
  EXPECT_EQ(Found(), "<damaged>");
  ASSERT_THAT(fs_.Remove("d/f.a"), IsOk());
  EXPECT_EQ(Found(), "<damaged>");
  fs_.SetContents("d/f.a", std::string(kCapacity, '\0'));
  EXPECT_EQ(Found(), "<damaged>");
}

TEST_F(TwoCopyFileTest, AnotherKindOfFileIsDamaged) {
  TwoCopyFile other(fs_, "d", "f", kMagic + 1, kCapacity);
  ASSERT_THAT(other.Save(1, "other"), IsOk());
  EXPECT_EQ(Found(), "<damaged>");
}

TEST_F(TwoCopyFileTest, SavingAfterDamageRepairsTheDamagedCopyFirst) {
  SaveThree();
  fs_.FlipBit("d/f.b", 0);
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOkAndHolds(TwoCopyState::kValid));
  ASSERT_THAT(file.Save(1, "four"), IsOk());
  fs_.SetContents("d/f.b", "");
  EXPECT_EQ(Found(), "three");
}

TEST_F(TwoCopyFileTest, SavingOverTwoDamagedCopiesStartsAfresh) {
  SaveThree();
  fs_.FlipBit("d/f.a", 0);
  fs_.FlipBit("d/f.b", 0);
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOkAndHolds(TwoCopyState::kDamaged));
  ASSERT_THAT(file.Save(1, "new"), IsOk());
  fs_.FlipBit("d/f.a", 0);
  EXPECT_EQ(Found(), "new");
}

TEST_F(TwoCopyFileTest, AnImageBeyondTheCapacityGrowsTheFile) {
  SaveThree();
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOk());
  const std::string large(10 * kCapacity, 'x');
  ASSERT_THAT(file.Save(1, large), IsOk());
  EXPECT_EQ(Found(), large);
  ASSERT_THAT(file.SaveBoth(1, "small"), IsOk());
  EXPECT_EQ(Found(), "small");
}

TEST_F(TwoCopyFileTest, AFullDiskStopsOnlyImagesBeyondTheCapacity) {
  SaveThree();
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOk());
  fs_.SetQuota(1);
  EXPECT_THAT(file.Save(1, std::string(5000, 'x')), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(Found(), "three");
  EXPECT_THAT(file.Save(1, "four"), IsOk());
  EXPECT_THAT(file.SaveBoth(1, "five"), IsOk());
  EXPECT_EQ(Found(), "five");
}

TEST_F(TwoCopyFileTest, ALargerCapacityMakesTheCopiesAnew) {
  SaveThree();
  TwoCopyFile file(fs_, "d", "f", kMagic, 4 * kCapacity);
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOk());
  ASSERT_THAT(file.SaveBoth(1, "larger"), IsOk());
  EXPECT_EQ(fs_.Contents("d/f.a").size(), 4 * kCapacity);
  EXPECT_EQ(fs_.Contents("d/f.b").size(), 4 * kCapacity);
  EXPECT_EQ(Found(), "larger");
}

TEST_F(TwoCopyFileTest, ReadErrorsAreNotTakenForDamage) {
  SaveThree();
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  fs_.FailNext(SimCall::kRead, absl::DataLossError("EIO"), "f.b");
  EXPECT_THAT(file.Load(&image), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file.Load(&image), IsOkAndHolds(TwoCopyState::kValid));
}

TEST_F(TwoCopyFileTest, AFailedSaveIsRepeatedOnTheSameCopy) {
  SaveThree();
  TwoCopyFile file = MakeFile();
  TwoCopyImage image;
  ASSERT_THAT(file.Load(&image), IsOk());
  ASSERT_THAT(file.Settle(), IsOk());
  fs_.ClearLog();
  fs_.FailNext(SimCall::kSync, absl::DataLossError("EIO"), "f.b");
  EXPECT_THAT(file.Save(1, "four"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(file.sequence(), 3u);
  ASSERT_THAT(file.Save(1, "again"), IsOk());
  EXPECT_THAT(fs_.log(), ElementsAre("write d/f.b", "sync d/f.b", "write d/f.b", "sync d/f.b"));
  EXPECT_EQ(Found(), "again");
}

}  // namespace
}  // namespace towline
