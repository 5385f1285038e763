#include "ctl/import_checkpoint.h"

#include <string>

#include "common/error.h"
#include "common/file_system.h"
#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

ImportCheckpoint Example() {
  ImportCheckpoint checkpoint;
  checkpoint.file = "/data/users.jsonl";
  checkpoint.file_bytes = 1000;
  checkpoint.client_id = "import-00ff";
  checkpoint.last_acked_line = 7;
  checkpoint.offset = 700;
  checkpoint.acked = 6;
  checkpoint.rejected = 1;
  checkpoint.term = 2;
  checkpoint.lsn = UINT64_MAX;
  return checkpoint;
}

TEST(ImportCheckpoint, SavesAndLoads) {
  const std::string path = ::testing::TempDir() + "/import_checkpoint_saves";
  ASSERT_TRUE(SaveCheckpoint(path, ImportCheckpoint()).ok());
  ASSERT_TRUE(SaveCheckpoint(path, Example()).ok());
  const auto loaded = LoadCheckpoint(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(*loaded, Example());
}

TEST(ImportCheckpoint, AbsentAndMalformedFilesDiffer) {
  EXPECT_TRUE(absl::IsNotFound(LoadCheckpoint(::testing::TempDir() + "/no_such_checkpoint").status()));
  for (const char* text : {"", "{}", "[1]", "not json", R"({"towline_import_checkpoint":2})",
                           R"({"towline_import_checkpoint":1,"file":5})"}) {
    ASSERT_TRUE(WriteFileDurably(*PosixFileSystem(), ::testing::TempDir(), "bad_checkpoint", text).ok());
    const auto loaded = LoadCheckpoint(::testing::TempDir() + "/bad_checkpoint");
    EXPECT_EQ(GetErrorInfo(loaded.status()).reason, "checkpoint_malformed") << text;
  }
}

TEST(ImportCheckpoint, AnotherFileIsRefused) {
  EXPECT_TRUE(CheckSameFile(Example(), "/data/users.jsonl", 1000).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckSameFile(Example(), "/data/other.jsonl", 1000)));
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckSameFile(Example(), "/data/users.jsonl", 1001)));
}

}  // namespace
}  // namespace towline::ctl
