// What every FileSystem does, on the machine's and on the simulated one.

#include "common/file_system.h"

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline {
namespace {

using test::IsOk;
using test::IsOkAndHolds;
using test::ReasonIs;
using test::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FileSystemTest : public ::testing::TestWithParam<bool> {
 protected:
  FileSystemTest() : fs_(GetParam() ? static_cast<FileSystem&>(sim_) : *PosixFileSystem()) {
    dir_ = GetParam() ? "data" : temp_.path();
    sim_.ExpectOrderViolations();  // these tests are about calls, not about durability
    EXPECT_THAT(fs_.CreateDirectory(dir_), IsOk());
  }

  std::string Path(absl::string_view name) const { return JoinPath(dir_, name); }

  std::unique_ptr<File> Open(absl::string_view name, OpenMode mode) {
    auto file = fs_.Open(Path(name), mode);
    EXPECT_THAT(file, IsOk());
    return *std::move(file);
  }

  void Put(absl::string_view name, absl::string_view data) {
    const auto file = Open(name, OpenMode::kCreateOrOpen);
    ASSERT_THAT(file->Truncate(0), IsOk());
    ASSERT_THAT(file->WriteAt(0, data), IsOk());
  }

  absl::StatusOr<std::string> Read(absl::string_view name) { return ReadFile(fs_, Path(name)); }

  test::TempDir temp_;
  test::SimFileSystem sim_;
  FileSystem& fs_;
  std::string dir_;
};

INSTANTIATE_TEST_SUITE_P(All, FileSystemTest, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "Simulated" : "Machine"; });

TEST_P(FileSystemTest, OpenModesDifferInWhatMustExist) {
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kRead), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kReadWrite), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kCreate), IsOk());
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kCreate), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kRead), IsOk());
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kReadWrite), IsOk());
  EXPECT_THAT(fs_.Open(Path("f"), OpenMode::kCreateOrOpen), IsOk());
  EXPECT_THAT(fs_.Open(Path("none/f"), OpenMode::kCreate), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(FileSystemTest, ErrorsNameThePathAndTheCause) {
  const absl::Status status = fs_.Open(Path("missing"), OpenMode::kRead).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("missing")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("No such file or directory"));
  EXPECT_THAT(status, ReasonIs("file_not_found"));
}

TEST_P(FileSystemTest, WritesGrowAFileAndHolesReadAsZero) {
  const auto file = Open("f", OpenMode::kCreate);
  ASSERT_THAT(file->WriteAt(10000, "end"), IsOk());
  ASSERT_THAT(file->WriteAt(2, "ab"), IsOk());
  EXPECT_THAT(file->Size(), IsOkAndHolds(10003u));
  std::string expected(10003, '\0');
  expected.replace(2, 2, "ab");
  expected.replace(10000, 3, "end");
  EXPECT_THAT(Read("f"), IsOkAndHolds(expected));
}

TEST_P(FileSystemTest, DirectWritesMayHaveAnyPlaceAndSize) {
  struct alignas(kDirectAlignment) Aligned {
    char bytes[5 * kDirectAlignment];
  };
  const auto buffer = std::make_unique<Aligned>();
  std::unique_ptr<File> file;
  std::string expected;
  char fill = 'a';
  // Whole blocks; blocks and a rest; not aligned in the file; not aligned in memory; over what is there.
  const auto write = [&](uint64_t offset, size_t size, size_t shift) {
    std::memset(buffer->bytes, fill, sizeof buffer->bytes);
    ASSERT_THAT(file->WriteAt(offset, absl::string_view(buffer->bytes + shift, size)), IsOk());
    if (expected.size() < offset + size) expected.resize(offset + size);
    expected.replace(offset, size, std::string(size, fill++));
  };
  for (const DirectWrites how : {DirectWrites::kAtOnce, DirectWrites::kBehind}) {
    file = Open("f", OpenMode::kCreateOrOpen);
    EXPECT_THAT(file->Truncate(0), IsOk());
    expected.clear();
    file->WriteDirectly(how);
    write(0, 2 * kDirectAlignment, 0);
    write(2 * kDirectAlignment, 2 * kDirectAlignment + 77, 0);
    write(4 * kDirectAlignment + 77, 3 * kDirectAlignment, 0);
    write(8 * kDirectAlignment, 3 * kDirectAlignment, 1);
    write(kDirectAlignment, 3 * kDirectAlignment, 0);
    write(20, 30, 0);
    write(12 * kDirectAlignment, kDirectAlignment, 0);
    EXPECT_THAT(file->SyncData(), IsOk());
    EXPECT_TRUE(*Read("f") == expected);
    EXPECT_THAT(file->Size(), IsOkAndHolds(13 * kDirectAlignment));
  }
}

TEST_P(FileSystemTest, ReadsStopAtTheEnd) {
  Put("f", "0123456789");
  const auto file = Open("f", OpenMode::kRead);
  char buffer[16];
  EXPECT_THAT(file->ReadAt(0, 4, buffer), IsOkAndHolds(4u));
  EXPECT_EQ(std::string(buffer, 4), "0123");
  EXPECT_THAT(file->ReadAt(7, sizeof buffer, buffer), IsOkAndHolds(3u));
  EXPECT_EQ(std::string(buffer, 3), "789");
  EXPECT_THAT(file->ReadAt(10, 1, buffer), IsOkAndHolds(0u));
  EXPECT_THAT(file->ReadAt(1000, 1, buffer), IsOkAndHolds(0u));
}

TEST_P(FileSystemTest, AFileOpenedForReadingCannotBeWritten) {
  Put("f", "x");
  const auto file = Open("f", OpenMode::kRead);
  EXPECT_THAT(file->WriteAt(0, "y"), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(Read("f"), IsOkAndHolds("x"));
}

TEST_P(FileSystemTest, TruncateCutsAndExtendsWithZeros) {
  Put("f", "0123456789");
  const auto file = Open("f", OpenMode::kReadWrite);
  ASSERT_THAT(file->Truncate(4), IsOk());
  ASSERT_THAT(file->Truncate(6), IsOk());
  EXPECT_THAT(Read("f"), IsOkAndHolds(std::string("0123\0\0", 6)));
}

TEST_P(FileSystemTest, RenameReplacesAndKeepsOpenFiles) {
  Put("a", "new");
  Put("b", "old");
  const auto old_b = Open("b", OpenMode::kRead);
  ASSERT_THAT(fs_.Rename(Path("a"), Path("b")), IsOk());
  EXPECT_THAT(fs_.List(dir_), IsOkAndHolds(ElementsAre("b")));
  EXPECT_THAT(Read("b"), IsOkAndHolds("new"));
  char buffer[3];
  EXPECT_THAT(old_b->ReadAt(0, 3, buffer), IsOkAndHolds(3u));
  EXPECT_EQ(std::string(buffer, 3), "old");
  EXPECT_THAT(fs_.Rename(Path("a"), Path("b")), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(FileSystemTest, DirectoriesMoveWithTheirContents) {
  ASSERT_THAT(fs_.CreateDirectory(Path("d")), IsOk());
  ASSERT_THAT(fs_.CreateDirectory(Path("other")), IsOk());
  Put("d/f", "x");
  ASSERT_THAT(fs_.Rename(Path("d"), Path("other/e")), IsOk());
  EXPECT_THAT(Read("other/e/f"), IsOkAndHolds("x"));
  EXPECT_THAT(fs_.List(dir_), IsOkAndHolds(ElementsAre("other")));
}

TEST_P(FileSystemTest, ListSortsAndKnowsDirectories) {
  EXPECT_THAT(fs_.List(dir_), IsOkAndHolds(IsEmpty()));
  Put("b", "");
  Put("a", "");
  Put("B", "");
  ASSERT_THAT(fs_.CreateDirectory(Path("d")), IsOk());
  EXPECT_THAT(fs_.List(dir_), IsOkAndHolds(ElementsAre("B", "a", "b", "d")));
  EXPECT_THAT(fs_.List(Path("none")), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(fs_.List(Path("a")), StatusIs(absl::StatusCode::kInternal));
}

TEST_P(FileSystemTest, CreatingADirectoryTwiceIsFineButNotOverAFile) {
  EXPECT_THAT(fs_.CreateDirectory(Path("d")), IsOk());
  EXPECT_THAT(fs_.CreateDirectory(Path("d")), IsOk());
  Put("f", "");
  EXPECT_THAT(fs_.CreateDirectory(Path("f")), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(fs_.CreateDirectory(Path("none/d")), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(FileSystemTest, RemoveTakesFilesAndEmptyDirectories) {
  ASSERT_THAT(fs_.CreateDirectory(Path("d")), IsOk());
  Put("d/f", "x");
  EXPECT_THAT(fs_.Remove(Path("d")), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(fs_.Remove(Path("d/f")), IsOk());
  EXPECT_THAT(fs_.Remove(Path("d")), IsOk());
  EXPECT_THAT(fs_.Remove(Path("d")), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(FileSystemTest, LinksAreNamesOfOneFile) {
  Put("a", "old");
  ASSERT_THAT(fs_.Link(Path("a"), Path("b")), IsOk());
  EXPECT_THAT(fs_.LinkCount(Path("a")), IsOkAndHolds(2u));
  Put("b", "new");
  EXPECT_THAT(Read("a"), IsOkAndHolds("new"));
  EXPECT_THAT(fs_.Link(Path("a"), Path("b")), StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(fs_.Link(Path("none"), Path("c")), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_THAT(fs_.Remove(Path("a")), IsOk());
  EXPECT_THAT(fs_.LinkCount(Path("b")), IsOkAndHolds(1u));
  EXPECT_THAT(Read("b"), IsOkAndHolds("new"));
}

TEST_P(FileSystemTest, OneOpenFileHoldsTheLockUntilItIsClosed) {
  auto first = Open("LOCK", OpenMode::kCreateOrOpen);
  const auto second = Open("LOCK", OpenMode::kCreateOrOpen);
  EXPECT_THAT(first->Lock(), IsOk());
  EXPECT_THAT(first->Lock(), IsOk());
  EXPECT_THAT(second->Lock(), StatusIs(absl::StatusCode::kUnavailable));
  first.reset();
  EXPECT_THAT(second->Lock(), IsOk());
}

TEST_P(FileSystemTest, SyncsSucceed) {
  const auto file = Open("f", OpenMode::kCreate);
  EXPECT_THAT(file->SyncData(), IsOk());
  EXPECT_THAT(fs_.SyncDirectory(dir_), IsOk());
  EXPECT_THAT(fs_.SyncDirectory(Path("none")), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(fs_.SyncDirectory(Path("f")), StatusIs(absl::StatusCode::kInternal));
}

TEST_P(FileSystemTest, SpaceIsAvailable) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const SpaceInfo space, fs_.Space(dir_));
  EXPECT_GT(space.total_bytes, 0u);
  EXPECT_LE(space.available_bytes, space.total_bytes);
  EXPECT_THAT(fs_.Space(Path("none")), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(FileSystemTest, WritesAtDifferentOffsetsMayOverlapInTime) {
  const auto file = Open("f", OpenMode::kCreate);
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&file, i] {
      const std::string piece(100, static_cast<char>('a' + i));
      for (int n = 0; n < 50; ++n) {
        EXPECT_THAT(file->WriteAt(static_cast<uint64_t>((n * 4 + i) * 100), piece), IsOk());
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  std::string expected;
  for (int n = 0; n < 200; ++n) expected.append(100, static_cast<char>('a' + n % 4));
  EXPECT_THAT(Read("f"), IsOkAndHolds(expected));
}

TEST_P(FileSystemTest, WriteFileDurablyReplacesTheWholeFile) {
  EXPECT_THAT(WriteFileDurably(fs_, dir_, "f", "a long first version"), IsOk());
  EXPECT_THAT(WriteFileDurably(fs_, dir_, "f", "second"), IsOk());
  EXPECT_THAT(Read("f"), IsOkAndHolds("second"));
  EXPECT_THAT(fs_.List(dir_), IsOkAndHolds(ElementsAre("f")));
}

TEST_P(FileSystemTest, RemoveAllTakesATree) {
  ASSERT_THAT(fs_.CreateDirectory(Path("d")), IsOk());
  ASSERT_THAT(fs_.CreateDirectory(Path("d/e")), IsOk());
  Put("d/f", "x");
  Put("d/e/g", "y");
  Put("keep", "z");
  EXPECT_THAT(RemoveAll(fs_, Path("d")), IsOk());
  EXPECT_THAT(RemoveAll(fs_, Path("d")), IsOk());
  EXPECT_THAT(fs_.List(dir_), IsOkAndHolds(ElementsAre("keep")));
  EXPECT_THAT(RemoveAll(fs_, Path("keep")), IsOk());
  EXPECT_FALSE(Exists(fs_, Path("keep")));
}

TEST_P(FileSystemTest, ExistsKnowsFilesAndDirectories) {
  Put("f", "");
  EXPECT_TRUE(Exists(fs_, Path("f")));
  EXPECT_TRUE(Exists(fs_, dir_));
  EXPECT_FALSE(Exists(fs_, Path("g")));
}

TEST(JoinPathTest, PutsOneSlashBetweenTheParts) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("/", "b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

TEST(PosixFileSystemTest, AFullDiskIsResourceExhausted) {
  const auto file = PosixFileSystem()->Open("/dev/full", OpenMode::kReadWrite);
  if (!file.ok()) GTEST_SKIP() << "no /dev/full here";
  EXPECT_THAT((*file)->WriteAt(0, "x"), StatusIs(absl::StatusCode::kResourceExhausted));
}

// At every call WriteFileDurably makes, a power loss leaves the old contents or the new, nothing else.
TEST(WriteFileDurablyTest, IsAllOrNothingAtEveryCrashPoint) {
  const std::string before(1500, 'o');
  const std::string after(2100, 'n');
  test::SimFileSystem fs;
  fs.SetContents("d/f", before);
  bool done = false;
  const auto check = [&] {
    test::ForEachCrashState(fs, 20, [&](test::SimFileSystem& crashed) {
      const std::string found = crashed.Contents("d/f");
      ASSERT_TRUE(found == after || (found == before && !done));
    });
  };
  fs.SetAfterCall(check);
  ASSERT_THAT(WriteFileDurably(fs, "d", "f", after), IsOk());
  done = true;
  check();
}

TEST(PathTest, TheParentIsThatOfTheName) {
  EXPECT_EQ(ParentDirectory("a/b"), "a");
  EXPECT_EQ(ParentDirectory("/a/b//"), "/a");
  EXPECT_EQ(ParentDirectory("/b"), "/");
  EXPECT_EQ(ParentDirectory("/"), "/");
  EXPECT_EQ(ParentDirectory("b"), ".");
  EXPECT_EQ(ParentDirectory("./b"), ".");
}

}  // namespace
}  // namespace towline
