// The simulated disk loses exactly what it may lose. What every file system does: tests/common/file_system_test.cc.

#include "tests/support/sim_file_system.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr CrashProfile kProfiles[] = {CrashProfile::kStrict, CrashProfile::kExt4Like, CrashProfile::kAdversary};

std::unique_ptr<File> Open(SimFileSystem& fs, const std::string& path, OpenMode mode = OpenMode::kCreateOrOpen) {
  auto file = fs.Open(path, mode);
  EXPECT_THAT(file, IsOk());
  return *std::move(file);
}

void Put(SimFileSystem& fs, const std::string& path, absl::string_view data) {
  ASSERT_THAT(Open(fs, path)->WriteAt(0, data), IsOk());
}

// The different contents of `path` after many power losses; "<gone>" if there is no such file.
std::set<std::string> Outcomes(const SimFileSystem& fs, CrashProfile profile, const std::string& path,
                               uint64_t seeds = 1000) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const auto crashed = fs.CloneAfterCrash(profile, seed);
    outcomes.insert(crashed->HasFile(path) ? crashed->Contents(path) : "<gone>");
  }
  return outcomes;
}

TEST(SimFileSystemTest, WhatIsSyncedWithItsNameSurvivesEveryPowerLoss) {
  SimFileSystem fs;
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
  const auto file = Open(fs, "d/f");
  ASSERT_THAT(file->WriteAt(0, "kept"), IsOk());
  ASSERT_THAT(file->SyncData(), IsOk());
  ASSERT_THAT(fs.SyncDirectory("d"), IsOk());
  for (CrashProfile profile : kProfiles) EXPECT_THAT(Outcomes(fs, profile, "d/f"), ElementsAre("kept"));
}

TEST(SimFileSystemTest, ANameIsLostWithoutDirectorySyncExceptOnExt4) {
  SimFileSystem fs;
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "x"), IsOk());
  ASSERT_THAT(file->SyncData(), IsOk());
  EXPECT_THAT(Outcomes(fs, CrashProfile::kStrict, "f"), ElementsAre("<gone>"));
  EXPECT_THAT(Outcomes(fs, CrashProfile::kAdversary, "f"), UnorderedElementsAre("<gone>", "x"));
  EXPECT_THAT(Outcomes(fs, CrashProfile::kExt4Like, "f"), ElementsAre("x"));
}

TEST(SimFileSystemTest, ADirectoryIsLostWithoutASyncOfItsParent) {
  SimFileSystem fs;
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  Put(fs, "d/f", "x");
  ASSERT_THAT(Open(fs, "d/f")->SyncData(), IsOk());
  ASSERT_THAT(fs.SyncDirectory("d"), IsOk());
  EXPECT_THAT(Outcomes(fs, CrashProfile::kStrict, "d/f"), ElementsAre("<gone>"));
}

TEST(SimFileSystemTest, ANameWithoutSyncedContentsIsAnEmptyFile) {
  SimFileSystem fs;
  Put(fs, "f", "x");
  ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
  EXPECT_THAT(Outcomes(fs, CrashProfile::kStrict, "f"), ElementsAre(""));
}

TEST(SimFileSystemTest, RenameIsAllOrNothingWithinADirectory) {
  SimFileSystem fs;
  fs.SetContents("a", "new");
  fs.SetContents("b", "old");
  ASSERT_THAT(fs.Rename("a", "b"), IsOk());
  std::set<std::map<std::string, std::string>> seen;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    seen.insert(fs.CloneAfterCrash(CrashProfile::kAdversary, seed)->AllContents());
  }
  EXPECT_THAT(seen, UnorderedElementsAre(UnorderedElementsAre(Pair("a", "new"), Pair("b", "old")),
                                         UnorderedElementsAre(Pair("b", "new"))));
}

TEST(SimFileSystemTest, NameChangesOfADirectorySurviveAsAPrefix) {
  SimFileSystem fs;
  for (const char* name : {"1", "2", "3"}) fs.SetContents(name, name);
  for (const char* name : {"1", "2", "3"}) ASSERT_THAT(fs.Remove(name), IsOk());
  std::set<size_t> left;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const auto contents = fs.CloneAfterCrash(CrashProfile::kAdversary, seed)->AllContents();
    left.insert(contents.size());
    for (const auto& [name, text] : contents) EXPECT_GT(std::stoul(name), 3 - contents.size());
  }
  EXPECT_THAT(left, ElementsAre(0, 1, 2, 3));
}

TEST(SimFileSystemTest, Ext4KeepsAPrefixOfTheWrites) {
  SimFileSystem fs;
  fs.SetContents("f", "....");
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "A"), IsOk());
  ASSERT_THAT(file->WriteAt(2, "B"), IsOk());
  ASSERT_THAT(file->Truncate(3), IsOk());
  EXPECT_THAT(Outcomes(fs, CrashProfile::kExt4Like, "f"), UnorderedElementsAre("....", "A...", "A.B.", "A.B"));
}

TEST(SimFileSystemTest, AdversaryTearsBetweenSectorsButNotWithinOne) {
  SimFileSystem fs;
  const std::string before(3 * kSectorSize, 'o');
  fs.SetContents("f", before);
  ASSERT_THAT(Open(fs, "f")->WriteAt(100, std::string(2 * kSectorSize, 'n')), IsOk());
  std::set<std::string> shapes;
  for (const std::string& outcome : Outcomes(fs, CrashProfile::kAdversary, "f")) {
    ASSERT_EQ(outcome.size(), before.size());
    std::string shape;
    for (size_t sector = 0; sector < 3; ++sector) {
      const std::string bytes = outcome.substr(sector * kSectorSize, kSectorSize);
      const bool is_new = bytes.find('n') != std::string::npos;
      ASSERT_EQ(bytes,
                is_new ? fs.Contents("f").substr(sector * kSectorSize, kSectorSize) : before.substr(0, kSectorSize));
      shape += is_new ? 'n' : 'o';
    }
    shapes.insert(shape);
  }
  EXPECT_EQ(shapes.size(), 8u) << "every combination of three sectors";
}

TEST(SimFileSystemTest, AdversaryMayDropAnEarlyWriteAndKeepALaterOne) {
  SimFileSystem fs;
  fs.SetContents("f", std::string(2 * kSectorSize, '.'));
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "A"), IsOk());
  ASSERT_THAT(file->WriteAt(kSectorSize, "B"), IsOk());
  std::set<std::string> kept;
  for (const std::string& outcome : Outcomes(fs, CrashProfile::kAdversary, "f")) {
    kept.insert({outcome[0], outcome[kSectorSize]});
  }
  EXPECT_THAT(kept, UnorderedElementsAre("..", "A.", ".B", "AB"));
}

// Memory is written as it is then: within a sector a later write cannot reach the disk without an earlier one.
TEST(SimFileSystemTest, ASectorKeepsAPrefixOfItsWrites) {
  SimFileSystem fs;
  fs.SetContents("f", "...");
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "A"), IsOk());
  ASSERT_THAT(file->WriteAt(1, "B"), IsOk());
  ASSERT_THAT(file->WriteAt(2, "C"), IsOk());
  EXPECT_THAT(Outcomes(fs, CrashProfile::kAdversary, "f"), UnorderedElementsAre("...", "A..", "AB.", "ABC"));
}

TEST(SimFileSystemTest, SectorsThatHeldNothingMayBeZeroGarbageOrStale) {
  SimFileSystem fs;
  const std::string stale(kSectorSize, 's');
  fs.SetContents("other", stale);
  fs.SetContents("f", "");
  const std::string written(2 * kSectorSize, 'n');
  ASSERT_THAT(Open(fs, "f")->WriteAt(0, written), IsOk());
  std::set<std::string> first_sectors;
  for (const std::string& outcome : Outcomes(fs, CrashProfile::kAdversary, "f")) {
    if (outcome.size() < kSectorSize) continue;
    const std::string first = outcome.substr(0, kSectorSize);
    const bool known =
        first == std::string(kSectorSize, '\0') || first == stale || first == written.substr(0, kSectorSize);
    first_sectors.insert(known ? first.substr(0, 1) : "garbage");
  }
  EXPECT_THAT(first_sectors, UnorderedElementsAre("n", "s", std::string(1, '\0'), "garbage"));
}

TEST(SimFileSystemTest, AFailedSyncLosesTheDataForGoodThoughItStaysVisible) {
  SimFileSystem fs;
  fs.SetContents("f", std::string(2 * kSectorSize, '.'));
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "A"), IsOk());
  fs.FailNext(SimCall::kSync, absl::DataLossError("EIO"));
  EXPECT_THAT(file->SyncData(), StatusIs(absl::StatusCode::kDataLoss));
  ASSERT_THAT(file->WriteAt(kSectorSize, "B"), IsOk());
  EXPECT_THAT(file->SyncData(), IsOk());
  EXPECT_EQ(fs.Contents("f")[0], 'A');
  for (CrashProfile profile : kProfiles) {
    const auto crashed = fs.CloneAfterCrash(profile, 1);
    EXPECT_EQ(crashed->Contents("f")[0], '.');
    EXPECT_EQ(crashed->Contents("f")[kSectorSize], 'B');
  }
  // Written again, the bytes are dirty again.
  ASSERT_THAT(file->WriteAt(0, "A"), IsOk());
  EXPECT_THAT(file->SyncData(), IsOk());
  EXPECT_EQ(fs.CloneAfterCrash(CrashProfile::kStrict, 1)->Contents("f")[0], 'A');
}

TEST(SimFileSystemTest, AFailedSyncMayBeToldToHaveWorked) {
  SimFileSystem fs;
  fs.SetContents("f", ".");
  fs.SetFailedSyncPersists(true);
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "A"), IsOk());
  fs.FailNext(SimCall::kSync, absl::DataLossError("EIO"));
  EXPECT_THAT(file->SyncData(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(Outcomes(fs, CrashProfile::kStrict, "f"), ElementsAre("A"));
}

TEST(SimFileSystemTest, FailCallHitsTheGivenCallOnceOrFromThenOn) {
  SimFileSystem fs;
  fs.SetContents("f", "0123");
  const auto file = Open(fs, "f");
  fs.FailCall(fs.calls() + 2, absl::DataLossError("EIO"));
  EXPECT_THAT(file->WriteAt(0, "ab"), IsOk());
  EXPECT_THAT(file->WriteAt(2, "cd"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(fs.Contents("f"), "abc3") << "half of a failed write is there";
  EXPECT_THAT(file->WriteAt(2, "cd"), IsOk());

  fs.FailCall(fs.calls() + 1, absl::UnavailableError("off"), true);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(fs.List("/"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(file->SyncData(), StatusIs(absl::StatusCode::kUnavailable));
  fs.ClearFailures();
  EXPECT_THAT(fs.List("/"), IsOk());
}

TEST(SimFileSystemTest, FailNextWaitsForKindAndPath) {
  SimFileSystem fs;
  fs.FailNext(SimCall::kRename, absl::DataLossError("EIO"), "target");
  Put(fs, "a", "x");
  EXPECT_THAT(fs.Rename("a", "b"), IsOk());
  EXPECT_THAT(fs.Rename("b", "target"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_TRUE(fs.HasFile("b"));
  EXPECT_THAT(fs.Rename("b", "target"), IsOk());
}

TEST(SimFileSystemTest, QuotaCountsAllocatedPagesAndSparesOverwrites) {
  SimFileSystem fs;
  fs.SetQuota(2 * 4096);
  const auto file = Open(fs, "f");
  EXPECT_THAT(file->WriteAt(0, std::string(8192, 'x')), IsOk());
  EXPECT_THAT(file->WriteAt(8192, "y"), ReasonIs("disk_full"));
  EXPECT_EQ(fs.Contents("f").size(), 8192u);
  EXPECT_THAT(file->WriteAt(100, std::string(5000, 'z')), IsOk());
  EXPECT_EQ(fs.Space("/")->available_bytes, 0u);

  // An open file keeps its space after its name is gone.
  auto open = Open(fs, "f", OpenMode::kRead);
  ASSERT_THAT(fs.Remove("f"), IsOk());
  const auto second = Open(fs, "g");
  EXPECT_THAT(second->WriteAt(0, "y"), ReasonIs("disk_full"));
}

TEST(SimFileSystemTest, KilledProcessLosesNothingButItsLocksAndFiles) {
  SimFileSystem fs;
  const auto file = Open(fs, "f");
  ASSERT_THAT(file->WriteAt(0, "x"), IsOk());
  ASSERT_THAT(file->Lock(), IsOk());
  fs.Reopen();
  EXPECT_EQ(fs.Contents("f"), "x");
  EXPECT_THAT(file->WriteAt(0, "y"), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(file->Size(), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(Open(fs, "f")->Lock(), IsOk());
  EXPECT_THAT(Outcomes(fs, CrashProfile::kStrict, "f"), ElementsAre("<gone>")) << "it is still not synced";
}

TEST(SimFileSystemTest, CrashChangesTheFileSystemInPlace) {
  SimFileSystem fs;
  fs.SetContents("kept", "x");
  Put(fs, "lost", "y");
  SeededRng rng(1);
  fs.Crash(CrashProfile::kStrict, rng);
  EXPECT_THAT(fs.AllContents(), ElementsAre(Pair("kept", "x")));
  Put(fs, "kept", "z");
  EXPECT_EQ(fs.Contents("kept"), "z");
}

TEST(SimFileSystemTest, ClonesShareNothing) {
  SimFileSystem fs;
  fs.SetContents("f", std::string(10000, 'x'));
  const auto clone = fs.Clone();
  Put(fs, "f", "original");
  Put(*clone, "f", "clone");
  EXPECT_EQ(fs.Contents("f").substr(0, 9), "originalx");
  EXPECT_EQ(clone->Contents("f").substr(0, 9), "clonexxxx");
}

TEST(SimFileSystemTest, TheSameSeedGivesTheSameDisk) {
  SimFileSystem fs;
  fs.SetContents("f", std::string(3000, 'x'));
  Put(fs, "f", std::string(5000, 'y'));
  Put(fs, "g", "z");
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_EQ(fs.CloneAfterCrash(CrashProfile::kAdversary, seed)->AllContents(),
              fs.CloneAfterCrash(CrashProfile::kAdversary, seed)->AllContents());
  }
}

TEST(SimFileSystemTest, LogListsChangesInOrderAndTheHookFollowsEach) {
  SimFileSystem fs;
  int calls = 0;
  fs.SetAfterCall([&calls] { ++calls; });
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  const auto file = Open(fs, "d/a");
  ASSERT_THAT(file->WriteAt(0, "x"), IsOk());
  ASSERT_THAT(file->Truncate(0), IsOk());
  ASSERT_THAT(file->SyncData(), IsOk());
  ASSERT_THAT(fs.Rename("d/a", "d/b"), IsOk());
  ASSERT_THAT(fs.Link("d/b", "c"), IsOk());
  ASSERT_THAT(fs.Remove("c"), IsOk());
  ASSERT_THAT(fs.List("d"), IsOk());
  ASSERT_THAT(fs.SyncDirectory("d"), IsOk());
  EXPECT_THAT(fs.log(), ElementsAre("mkdir d", "create d/a", "write d/a", "truncate d/a", "sync d/a", "rename d/a d/b",
                                    "link d/b c", "remove c", "syncdir d"));
  EXPECT_EQ(calls, 9);
  fs.ClearLog();
  EXPECT_THAT(fs.log(), IsEmpty());
}

// A file against a plain string.
TEST(SimFileSystemTest, ContentsAgreeWithAStringUnderRandomWritesAndTruncates) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SeededRng rng(seed);
    SimFileSystem fs;
    const auto file = Open(fs, "f");
    std::string model;
    for (int i = 0; i < 60; ++i) {
      const uint64_t offset = rng.Below(20000);
      if (rng.OneIn(4)) {
        ASSERT_THAT(file->Truncate(offset), IsOk());
        model.resize(offset, '\0');
      } else {
        const std::string data(rng.Below(6000), static_cast<char>('a' + rng.Below(26)));
        ASSERT_THAT(file->WriteAt(offset, data), IsOk());
        if (!data.empty()) {
          model.resize(std::max<size_t>(model.size(), offset + data.size()), '\0');
          model.replace(offset, data.size(), data);
        }
      }
      if (rng.OneIn(8)) {
        ASSERT_THAT(file->SyncData(), IsOk());
      }
      ASSERT_EQ(fs.Contents("f"), model) << "seed " << seed << ", step " << i;
    }
    ASSERT_THAT(file->SyncData(), IsOk());
    ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
    ASSERT_EQ(fs.CloneAfterCrash(CrashProfile::kAdversary, seed)->Contents("f"), model);
  }
}

// --- The order of syncs ---

TEST(SimFileSystemTest, AFileThatGetsItsNameBeforeItsSyncIsAnOrderViolation) {
  SimFileSystem fs;
  fs.ExpectOrderViolations();
  for (const bool sync : {true, false}) {
    const std::string tmp = sync ? "synced" : "unsynced";
    absl::StatusOr<std::unique_ptr<File>> file = fs.Open(tmp, OpenMode::kCreate);
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->WriteAt(0, "data"), IsOk());
    if (sync) {
      ASSERT_THAT((*file)->SyncData(), IsOk());
    }
    ASSERT_THAT(fs.Rename(tmp, "final-" + tmp), IsOk());
  }
  EXPECT_THAT(fs.order_violations(), ::testing::ElementsAre(::testing::HasSubstr("rename unsynced")));
}

TEST(SimFileSystemTest, DurableMeansContentsAndEveryNameOnThePath) {
  SimFileSystem fs;
  EXPECT_FALSE(fs.IsDurable("d/f"));
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  absl::StatusOr<std::unique_ptr<File>> file = fs.Open("d/f", OpenMode::kCreate);
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT((*file)->WriteAt(0, "data"), IsOk());
  ASSERT_THAT((*file)->SyncData(), IsOk());
  EXPECT_FALSE(fs.IsDurable("d/f"));  // names
  ASSERT_THAT(fs.SyncDirectory("d"), IsOk());
  EXPECT_FALSE(fs.IsDurable("d/f"));  // of the directory
  ASSERT_THAT(fs.SyncDirectory("."), IsOk());
  EXPECT_TRUE(fs.IsDurable("d/f"));
  ASSERT_THAT((*file)->WriteAt(0, "more"), IsOk());
  EXPECT_FALSE(fs.IsDurable("d/f"));
}

}  // namespace
}  // namespace towline::test
