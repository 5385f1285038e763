// Store files as they arrive: what is held after cuts, crashes and faults, and what is never believed.

#include "replica/file_install.h"

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/data_layout.h"
#include "gtest/gtest.h"
#include "tests/replica/file_stream_maker.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr char kFiles[] = "gen/2/files";
constexpr char kStore[] = "gen/2/db";
constexpr size_t kPiece = 4096;

std::string Content(char first, size_t size) {
  std::string content(size, first);
  for (size_t i = 1; i < size; ++i) content[i] = static_cast<char>(content[i - 1] * 31 + i / 7);
  return content;
}

Files SomeFiles() {
  return {{"000007.sst", Content('a', 20'000)},
          {"000009.sst", Content('b', 8192)},
          {"CURRENT", "MANIFEST-000004\n"},
          {"MANIFEST-000004", Content('c', 5000)},
          {"empty", ""}};
}

class FileInstallTest : public ::testing::Test {
 protected:
  FileInstallTest() { MakeGeneration(fs_); }

  static void MakeGeneration(SimFileSystem& fs) {
    EXPECT_THAT(MakeDirectoryDurably(fs, "/", "gen"), IsOk());
    EXPECT_THAT(MakeDirectoryDurably(fs, "gen", "2"), IsOk());
  }

  static v1::FetchSnapshotRequest RequestOf(const FileInstall& install) {
    v1::FetchSnapshotRequest request;
    install.FillHeld(&request);
    return request;
  }

  // In two parts, as a connection may bring it.
  static absl::Status AddPiece(FileInstall& install, v1::SnapshotFileChunk chunk) {
    const std::string data = std::move(*chunk.mutable_data());
    chunk.clear_data();
    absl::Cord parts(data.substr(0, data.size() / 3));
    parts.Append(absl::MakeCordFromExternal(absl::string_view(data).substr(data.size() / 3), [] {}));
    return install.Add(chunk, parts);
  }

  // Takes `stream` up to `pieces` pieces (all of them and the end, if there are no more). First error.
  static absl::Status Take(FileInstall& install, const std::vector<v1::FetchSnapshotResponse>& stream,
                           size_t pieces = 1000) {
    for (const v1::FetchSnapshotResponse& message : stream) {
      absl::Status taken;
      if (message.has_header()) taken = install.Begin(message.header());
      if (message.has_file_chunk()) {
        if (pieces-- == 0) return absl::OkStatus();
        taken = AddPiece(install, message.file_chunk());
      }
      if (message.has_end()) taken = install.Finish(kStore);
      if (!taken.ok()) return taken;
    }
    return absl::OkStatus();
  }

  static std::vector<v1::FetchSnapshotResponse> StreamFor(const FileInstall& install, const Files& files) {
    return MakeFileStream(files, RequestOf(install), kPiece, 77);
  }

  static uint64_t BytesIn(const std::vector<v1::FetchSnapshotResponse>& stream) {
    uint64_t bytes = 0;
    for (const v1::FetchSnapshotResponse& message : stream) bytes += message.file_chunk().data().size();
    return bytes;
  }

  static Files StoreIn(SimFileSystem& fs) {
    Files files;
    for (const std::string& name : fs.Names(kStore)) files[name] = fs.Contents(absl::StrCat(kStore, "/", name));
    return files;
  }

  SimFileSystem fs_;
};

TEST_F(FileInstallTest, FilesArriveAndBecomeTheStore) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  EXPECT_EQ(RequestOf(install).held_size(), 0);
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles())), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
  EXPECT_EQ(install.bytes(), 20'000u + 8192 + 16 + 5000);
  EXPECT_EQ(install.durable_bytes(), install.bytes());
  install.RemoveOwnNames();
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
  EXPECT_EQ(fs_.Names("gen/2"), std::vector<std::string>{"db"});
}

TEST_F(FileInstallTest, ACutStreamGoesOnInTheSameProcessBehindTheLastPiece) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles()), 7), IsOk());  // five of the first file, two of the second
  EXPECT_EQ(install.bytes(), 28'192u);
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles()), 0), IsOk());
  const auto rest = StreamFor(install, SomeFiles());
  EXPECT_EQ(BytesIn(rest), 5016u);
  ASSERT_THAT(Take(install, rest), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

TEST_F(FileInstallTest, ARestartFindsWhatIsThereAndSendsNoWholeBlockAgain) {
  for (size_t pieces = 1; pieces <= 9; ++pieces) {
    SimFileSystem fs;
    MakeGeneration(fs);
    FileInstall before(fs, kFiles);
    ASSERT_THAT(before.Load(), IsOk());
    ASSERT_THAT(Take(before, MakeFileStream(SomeFiles(), RequestOf(before), 3000, 77), pieces), IsOk());
    FileInstall after(fs, kFiles);
    ASSERT_THAT(after.Load(), IsOk());
    EXPECT_GT(after.bytes() + 4096, before.bytes());
    const auto rest = StreamFor(after, SomeFiles());
    EXPECT_EQ(BytesIn(rest), 33'208 - after.bytes());
    ASSERT_THAT(Take(after, rest), IsOk());
    EXPECT_EQ(StoreIn(fs), SomeFiles());
  }
}

TEST_F(FileInstallTest, ANewerSnapshotTakesWhatIsTheSameAndRemovesTheRest) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles()), 9), IsOk());  // all but the last piece of the manifest
  Files newer = SomeFiles();
  newer.erase("000009.sst");
  newer["000011.sst"] = Content('n', 9000);
  newer["000007.sst"][5] ^= 1;  // the same name, another file
  newer["MANIFEST-000004"] += Content('m', 3000);
  const auto stream = StreamFor(install, newer);
  EXPECT_EQ(BytesIn(stream), 20'000u + 9000 + (8000 - 4096));
  ASSERT_THAT(Take(install, stream), IsOk());
  EXPECT_EQ(StoreIn(fs_), newer);
  EXPECT_THAT(fs_.Names(kFiles), ::testing::SizeIs(newer.size()));
}

TEST_F(FileInstallTest, AWholeFileThatGrewIsGoneOnWith) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  ASSERT_THAT(Take(install, StreamFor(install, {{"MANIFEST-000004", Content('c', 8192)}})), IsOk());
  const Files newer = {{"MANIFEST-000004", Content('c', 12'000)}};
  const auto stream = StreamFor(install, newer);
  EXPECT_EQ(BytesIn(stream), 12'000u - 8192);
  ASSERT_THAT(Take(install, stream), IsOk());
  EXPECT_EQ(StoreIn(fs_), newer);
}

TEST_F(FileInstallTest, WhatIsNotTheNextPieceIsRefusedAndChangesNothing) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  const auto stream = StreamFor(install, SomeFiles());
  ASSERT_THAT(Take(install, stream, 2), IsOk());
  const v1::SnapshotFileChunk next = stream[3].file_chunk();
  const std::vector<std::function<void(v1::SnapshotFileChunk&)>> faults = {
      [](auto& chunk) { chunk.set_file(1); },
      [](auto& chunk) { chunk.set_file(4'000'000'000u); },
      [](auto& chunk) { chunk.set_offset(chunk.offset() + 1); },
      [](auto& chunk) { chunk.set_offset(0); },
      [](auto& chunk) { chunk.set_offset(~0ull); },
      [](auto& chunk) { (*chunk.mutable_data())[100] ^= 1; },
      [](auto& chunk) { chunk.set_crc32c(chunk.crc32c() ^ 1); },
      [](auto& chunk) { chunk.set_crc32c(Crc32c(chunk.data())); },  // of the piece alone
      [](auto& chunk) { chunk.clear_data(), chunk.set_crc32c(0); },
      [](auto& chunk) { chunk.set_data(std::string(20'000, 'x')); },  // more than the file has left
  };
  for (size_t i = 0; i < faults.size(); ++i) {
    v1::SnapshotFileChunk wrong = next;
    faults[i](wrong);
    const absl::Status refused = AddPiece(install, wrong);
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kDataLoss)) << i;
    EXPECT_EQ(install.bytes(), 2 * kPiece) << i;
  }
  EXPECT_THAT(install.Finish(kStore), ReasonIs("bad_snapshot"));
  for (size_t i = 3; i + 1 < stream.size(); ++i) ASSERT_THAT(AddPiece(install, stream[i].file_chunk()), IsOk());
  EXPECT_THAT(AddPiece(install, stream[3].file_chunk()), ReasonIs("bad_snapshot"));  // behind the last one
  ASSERT_THAT(install.Finish(kStore), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

TEST_F(FileInstallTest, HeadersThatMakeNoSenseAreRefused) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles()), 2), IsOk());
  const v1::SnapshotHeader good = StreamFor(install, SomeFiles())[0].header();
  const std::vector<std::function<void(v1::SnapshotHeader&)>> faults = {
      [](auto& header) { header.mutable_files(0)->set_name("../../control"); },
      [](auto& header) { header.mutable_files(0)->set_name("a/b"); },
      [](auto& header) { header.mutable_files(0)->set_name(".."); },
      [](auto& header) { header.mutable_files(0)->set_name(""); },
      [](auto& header) { header.mutable_files(0)->set_name(std::string(65, '0')); },
      [](auto& header) { header.mutable_files(0)->set_name(std::string("0\0", 2)); },
      [](auto& header) { header.mutable_files(1)->set_name("000007.sst"); },
      [](auto& header) { header.mutable_files(0)->set_held_bytes(1); },
      [](auto& header) { header.mutable_files(0)->set_held_bytes(12'288); },
      [](auto& header) { header.mutable_files(0)->set_size(100); },
      [](auto& header) { header.mutable_files(1)->set_held_bytes(4096); },
  };
  for (size_t i = 0; i < faults.size(); ++i) {
    v1::SnapshotHeader wrong = good;
    faults[i](wrong);
    EXPECT_THAT(install.Begin(wrong), ReasonIs("bad_snapshot")) << i;
  }
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles())), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

// A write behind the caller fails when later pieces have been taken already.
TEST_F(FileInstallTest, AFullDiskTakesNothingThatWasThere) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  const auto stream = StreamFor(install, SomeFiles());
  ASSERT_THAT(Take(install, stream, 6), IsOk());
  ASSERT_EQ(install.bytes(), 20'000 + kPiece);
  fs_.FailNext(SimCall::kWrite, FileError(28 /* ENOSPC */, "write", "part"));  // leaves half of it
  EXPECT_THAT(AddPiece(install, stream[7].file_chunk()), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(install.bytes(), 20'000 + kPiece);
  const auto rest = StreamFor(install, SomeFiles());
  EXPECT_EQ(BytesIn(rest), 13'208 - kPiece);
  ASSERT_THAT(Take(install, rest), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

TEST_F(FileInstallTest, AFullDiskIsToldWithALaterPieceOrTheSync) {
  for (const size_t pieces : {1, 3, 4}) {
    SimFileSystem fs;
    MakeGeneration(fs);
    FileInstall install(fs, kFiles);
    ASSERT_THAT(install.Load(), IsOk());
    const auto stream = StreamFor(install, SomeFiles());
    ASSERT_THAT(Take(install, stream, pieces), IsOk());
    fs.FailNext(SimCall::kWrite, FileError(28 /* ENOSPC */, "write", "part"));
    absl::Status added = AddPiece(install, stream[pieces + 1].file_chunk());
    if (pieces < 4) {
      EXPECT_THAT(added, IsOk());
      added = AddPiece(install, stream[pieces + 2].file_chunk());
    }
    EXPECT_THAT(added, StatusIs(absl::StatusCode::kResourceExhausted));
    const size_t held = pieces * kPiece;  // what is in the file
    EXPECT_EQ(install.bytes(), held);
    const auto again = StreamFor(install, SomeFiles());
    EXPECT_EQ(BytesIn(again), 33'208 - held);
    ASSERT_THAT(Take(install, again), IsOk());
    EXPECT_EQ(StoreIn(fs), SomeFiles());
  }
}

TEST_F(FileInstallTest, AFileWhoseSyncFailedIsSentAgain) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  fs_.FailNext(SimCall::kSync, FileError(5 /* EIO */, "fdatasync", "part"));
  EXPECT_THAT(Take(install, StreamFor(install, SomeFiles())), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(install.bytes(), 0u);
  const auto stream = StreamFor(install, SomeFiles());
  EXPECT_EQ(BytesIn(stream), 33'208u);
  ASSERT_THAT(Take(install, stream), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

TEST_F(FileInstallTest, WhatIsCommittedOutlivesAPowerLoss) {
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  const auto stream = StreamFor(install, SomeFiles());
  ASSERT_THAT(Take(install, stream, 3), IsOk());
  EXPECT_EQ(install.durable_bytes(), 0u);
  ASSERT_THAT(install.Commit(), IsOk());
  EXPECT_EQ(install.durable_bytes(), 3 * kPiece);
  ASSERT_THAT(fs_.SyncDirectory(kFiles), IsOk());
  const auto crashed = fs_.CloneAfterCrash(CrashProfile::kStrict, 1);
  FileInstall after(*crashed, kFiles);
  ASSERT_THAT(after.Load(), IsOk());
  EXPECT_EQ(BytesIn(StreamFor(after, SomeFiles())), 33'208 - 3 * kPiece);
  ASSERT_THAT(AddPiece(install, stream[4].file_chunk()), IsOk());
  fs_.FailNext(SimCall::kSync, FileError(5 /* EIO */, "fdatasync", "part"));
  EXPECT_THAT(install.Commit(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(install.bytes(), 0u);
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles())), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

TEST_F(FileInstallTest, WhatCannotBeReadAtTheStartIsSentAgain) {
  {
    FileInstall install(fs_, kFiles);
    ASSERT_THAT(install.Load(), IsOk());
    ASSERT_THAT(Take(install, StreamFor(install, SomeFiles()), 6), IsOk());
  }
  fs_.SetContents(absl::StrCat(kFiles, "/strange"), "x");
  fs_.SetContents(absl::StrCat(kFiles, "/CURRENT.zzzzzzzz"), "x");
  fs_.FailNext(SimCall::kRead, FileError(5 /* EIO */, "read", "part"), "part");
  FileInstall after(fs_, kFiles);
  ASSERT_THAT(after.Load(), IsOk());
  EXPECT_EQ(after.bytes(), 20'000u);  // the whole one
  ASSERT_THAT(Take(after, StreamFor(after, SomeFiles())), IsOk());
  EXPECT_EQ(StoreIn(fs_), SomeFiles());
}

// Power is lost at every call of a transfer that is cut once. Whatever is left, the next process ends with the files of
// the source, and nobody sees a store before all are there.
TEST_F(FileInstallTest, AfterEveryPowerLossTheFilesAreThoseOfTheSource) {
  int states = 0;
  std::vector<std::string> wrong;
  fs_.SetAfterCall([&] {
    ForEachCrashState(fs_, 3, [&](SimFileSystem& crashed) {
      ++states;
      FileInstall after(crashed, kFiles);
      const absl::Status loaded = after.Load();
      const absl::Status taken = loaded.ok() ? Take(after, StreamFor(after, SomeFiles())) : loaded;
      if (!taken.ok()) wrong.push_back(taken.ToString());
      if (taken.ok() && StoreIn(crashed) != SomeFiles()) wrong.push_back("another store");
    });
  });
  FileInstall install(fs_, kFiles);
  ASSERT_THAT(install.Load(), IsOk());
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles()), 6), IsOk());
  ASSERT_THAT(Take(install, StreamFor(install, SomeFiles())), IsOk());
  install.RemoveOwnNames();
  fs_.SetAfterCall(nullptr);
  EXPECT_THAT(wrong, ::testing::IsEmpty());
  EXPECT_GT(states, 100);
  for (const std::string& name : fs_.Names(kStore)) EXPECT_TRUE(fs_.IsDurable(absl::StrCat(kStore, "/", name))) << name;
}

}  // namespace
}  // namespace towline::test
