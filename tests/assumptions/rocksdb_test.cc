// What the RocksDB adapter takes for granted, checked against the installed library. A failure after an upgrade says
// that a decision in store/rocksdb has lost its ground, not that its code is wrong.

#include <algorithm>
#include <limits>
#include <memory>
#include <signal.h>
#include <stdlib.h>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/file_system.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "rocksdb/sst_file_writer.h"
#include "rocksdb/table.h"
#include "rocksdb/utilities/checkpoint.h"
#include "rocksdb/version.h"
#include "tests/store/child_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

constexpr char kDirectoryVariable[] = "TOWLINE_TEST_ROCKSDB_DIRECTORY";

rocksdb::Options TestOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.info_log_level = rocksdb::WARN_LEVEL;
  return options;
}

rocksdb::WriteOptions Unlogged() {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  return options;
}

std::unique_ptr<rocksdb::DB> Open(const std::string& path, const rocksdb::Options& options = TestOptions()) {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, path, &db);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return std::unique_ptr<rocksdb::DB>(db);
}

// Data and its position in one batch, as the state store writes them.
void WriteAt(rocksdb::DB& db, int position) {
  rocksdb::WriteBatch batch;
  batch.Put(absl::StrCat("u", position), std::string(1000, 'v'));
  batch.Put("p", absl::StrCat(position));
  ASSERT_TRUE(db.Write(Unlogged(), &batch).ok());
}

std::string Read(rocksdb::DB& db, rocksdb::ReadTier tier = rocksdb::kReadAllTier) {
  rocksdb::ReadOptions options;
  options.read_tier = tier;
  std::string value;
  const rocksdb::Status status = db.Get(options, "p", &value);
  return status.ok() ? value : status.IsNotFound() ? "none" : status.ToString();
}

TEST(RocksDbAssumptions, TheVersionIsTheOneThatWasStudied) {
  EXPECT_EQ(rocksdb::GetRocksVersionAsString(false), "7.8");
}

TEST(RocksDbAssumptions, ThePersistedTierShowsWhatWasFlushedOnly) {
  const TempDir dir;
  const auto db = Open(dir.Join("db"));
  EXPECT_EQ(Read(*db, rocksdb::kPersistedTier), "none");
  WriteAt(*db, 1);
  EXPECT_EQ(Read(*db, rocksdb::kPersistedTier), "none");
  ASSERT_TRUE(db->Flush(rocksdb::FlushOptions()).ok());
  EXPECT_EQ(Read(*db, rocksdb::kPersistedTier), "1");
  WriteAt(*db, 2);
  EXPECT_EQ(Read(*db, rocksdb::kPersistedTier), "1");
  EXPECT_EQ(Read(*db), "2");
}

TEST(RocksDbAssumptions, ACleanCloseFlushes) {
  const TempDir dir;
  {
    const auto db = Open(dir.Join("db"));
    WriteAt(*db, 1);
  }
  EXPECT_EQ(Read(*Open(dir.Join("db")), rocksdb::kPersistedTier), "1");
}

TEST(RocksDbAssumptionsChild, DISABLED_WriteAndDie) {
  const auto db = Open(JoinPath(getenv(kDirectoryVariable), "db"));
  for (int i = 1; i <= 10; ++i) WriteAt(*db, i);
  ASSERT_TRUE(db->Flush(rocksdb::FlushOptions()).ok());
  for (int i = 11; i <= 20; ++i) WriteAt(*db, i);
  raise(SIGKILL);
}

TEST(RocksDbAssumptions, AKilledProcessLeavesTheFlushedPrefix) {
  const TempDir dir;
  setenv(kDirectoryVariable, dir.path().c_str(), 1);
  ChildProcess child({"/proc/self/exe", "--gtest_also_run_disabled_tests",
                      "--gtest_filter=RocksDbAssumptionsChild.DISABLED_WriteAndDie"},
                     dir.Join("child.out"));
  ASSERT_EQ(child.Wait(60), 128 + SIGKILL);
  const auto db = Open(dir.Join("db"));
  EXPECT_EQ(Read(*db), "10");
  std::string value;
  EXPECT_TRUE(db->Get(rocksdb::ReadOptions(), "u10", &value).ok());
  EXPECT_TRUE(db->Get(rocksdb::ReadOptions(), "u11", &value).IsNotFound());
}

// Memtables are flushed oldest first, also when several are merged into one file.
TEST(RocksDbAssumptions, AutomaticFlushesPersistAPrefix) {
  const TempDir dir;
  rocksdb::Options options = TestOptions();
  options.write_buffer_size = 64 << 10;
  options.min_write_buffer_number_to_merge = 4;
  options.max_write_buffer_number = 10;
  const auto db = Open(dir.Join("db"), options);
  int last = 0;
  for (int i = 1; i <= 3000; ++i) {
    WriteAt(*db, i);
    const std::string persisted = Read(*db, rocksdb::kPersistedTier);
    if (persisted == "none") continue;
    const int position = std::stoi(persisted);
    ASSERT_GE(position, last);
    ASSERT_LE(position, i);
    last = position;
    // The data of that position is there as well, and nothing behind it.
    rocksdb::ReadOptions tier;
    tier.read_tier = rocksdb::kPersistedTier;
    std::string value;
    ASSERT_TRUE(db->Get(tier, absl::StrCat("u", position), &value).ok());
  }
  EXPECT_GT(last, 1000);
}

TEST(RocksDbAssumptions, UnloggedWritesLeaveTheLogEmpty) {
  const TempDir dir;
  const auto db = Open(dir.Join("db"));
  for (int i = 1; i <= 100; ++i) WriteAt(*db, i);
  rocksdb::VectorLogPtr logs;
  ASSERT_TRUE(db->GetSortedWalFiles(logs).ok());
  for (const auto& log : logs) EXPECT_EQ(log->SizeFileBytes(), 0u);
}

TEST(RocksDbAssumptions, ACheckpointHoldsItsOwnPosition) {
  const TempDir dir;
  const auto db = Open(dir.Join("db"));
  WriteAt(*db, 1);
  ASSERT_TRUE(db->Flush(rocksdb::FlushOptions()).ok());
  WriteAt(*db, 2);
  rocksdb::Checkpoint* made = nullptr;
  ASSERT_TRUE(rocksdb::Checkpoint::Create(db.get(), &made).ok());
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  // A limit that no log reaches: nothing is flushed for it.
  ASSERT_TRUE(checkpoint->CreateCheckpoint(dir.Join("copy"), std::numeric_limits<uint64_t>::max()).ok());
  EXPECT_EQ(Read(*Open(dir.Join("copy")), rocksdb::kPersistedTier), "1");
}

// Files that were moved in are there after a kill without any flush, and their keys lie beside those of the memtable.
TEST(RocksDbAssumptionsChild, DISABLED_IngestAndDie) {
  const std::string directory = getenv(kDirectoryVariable);
  const auto db = Open(JoinPath(directory, "db"));
  for (int file = 0; file < 3; ++file) {
    ASSERT_TRUE(db->Put(Unlogged(), absl::StrCat("x", file), "hint").ok());
    const std::string path = JoinPath(directory, absl::StrCat(file, ".sst"));
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), TestOptions());
    ASSERT_TRUE(writer.Open(path).ok());
    for (int i = 100; i < 200; ++i) ASSERT_TRUE(writer.Put(absl::StrCat("u", file, "-", i), "value").ok());
    ASSERT_TRUE(writer.Finish().ok());
    rocksdb::IngestExternalFileOptions options;
    options.move_files = true;
    options.write_global_seqno = false;
    ASSERT_TRUE(db->IngestExternalFile({path}, options).ok());
    ASSERT_FALSE(Exists(*PosixFileSystem(), path));
  }
  raise(SIGKILL);
}

TEST(RocksDbAssumptions, IngestedFilesAreDurableAtOnce) {
  const TempDir dir;
  setenv(kDirectoryVariable, dir.path().c_str(), 1);
  ChildProcess child({"/proc/self/exe", "--gtest_also_run_disabled_tests",
                      "--gtest_filter=RocksDbAssumptionsChild.DISABLED_IngestAndDie"},
                     dir.Join("child.out"));
  ASSERT_EQ(child.Wait(60), 128 + SIGKILL);
  const auto db = Open(dir.Join("db"));
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(rocksdb::ReadOptions()));
  int keys = 0;
  for (it->SeekToFirst(); it->Valid(); it->Next()) keys += it->key().starts_with("u") ? 1 : 0;
  EXPECT_EQ(keys, 300);
}

// An iterator gives up when it has to pass too many deleted keys; range deletes are kept whole then.
TEST(RocksDbAssumptions, AnIteratorCanBeToldNotToPassManyTombstones) {
  const TempDir dir;
  const auto db = Open(dir.Join("db"));
  for (int i = 100; i < 900; ++i) {
    ASSERT_TRUE(db->Put(Unlogged(), absl::StrCat("u", i), "v").ok());
    ASSERT_TRUE(db->Delete(Unlogged(), absl::StrCat("u", i)).ok());
  }
  rocksdb::ReadOptions options;
  options.max_skippable_internal_keys = 256;
  const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator(options));
  it->Seek("u");
  EXPECT_FALSE(it->Valid());
  EXPECT_TRUE(it->status().IsIncomplete()) << it->status().ToString();
}

TEST(RocksDbAssumptions, BlocksAreCheckedByXxh3AndCompressionsAreThere) {
  EXPECT_EQ(rocksdb::BlockBasedTableOptions().checksum, rocksdb::kXXH3);
  const std::vector<rocksdb::CompressionType> types = rocksdb::GetSupportedCompressions();
  EXPECT_NE(std::find(types.begin(), types.end(), rocksdb::kLZ4Compression), types.end());
  EXPECT_NE(std::find(types.begin(), types.end(), rocksdb::kZSTD), types.end());
}

TEST(RocksDbAssumptions, AStoreThatIsOpenCannotBeOpenedAgain) {
  const TempDir dir;
  const auto db = Open(dir.Join("db"));
  rocksdb::DB* second = nullptr;
  EXPECT_TRUE(rocksdb::DB::Open(TestOptions(), dir.Join("db"), &second).IsIOError());
}

}  // namespace
}  // namespace towline::test
