// What the RocksDB adapter compresses, told by the bytes that it takes on the disk (docs/adr/0023).

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "store/rocksdb/rocksdb_store.h"
#include "store/store.h"
#include "tests/support/counter.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

constexpr int kKeys = 4000;
constexpr int kValueBytes = 256;
constexpr uint64_t kRawBytes = uint64_t{kKeys} * kValueBytes;

std::string KeyOf(uint64_t number) { return absl::StrCat("u", 100000 + number); }

// 6 bits in each byte and no repetitions: LZ4 makes nothing less of it, Zstandard a quarter.
std::vector<std::string> RandomTexts(uint64_t seed) {
  SeededRng rng(seed);
  std::vector<std::string> texts(kKeys, std::string(kValueBytes, '\0'));
  for (std::string& text : texts) {
    for (char& letter : text) letter = static_cast<char>('0' + rng.Below(64));
  }
  return texts;
}

std::unique_ptr<StoreFactory> NewFactory() {
  RocksDbOptions options;
  options.block_cache_bytes = 8 << 20;
  options.write_buffer_bytes = 1 << 20;
  return NewRocksDbStoreFactory(options);
}

TEST(RocksDbFiles, TheLastLevelIsCompressedByZstdAndWhatIsFlushedIsNot) {
  const TempDir dir;
  const std::unique_ptr<StoreFactory> factory = NewFactory();
  EXPECT_THAT(factory->file_form(), HasSubstr("+zstd"));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto store, factory->Open(dir.Join("db")));
  std::vector<std::string> texts;
  // Four files of the same keys are merged into one of the last level.
  for (int file = 0; file < 4; ++file) {
    texts = RandomTexts(file);
    auto batch = store->NewBatch();
    for (int i = 0; i < kKeys; ++i) batch->Put(KeyOf(i), texts[i]);
    ASSERT_THAT(store->Write(std::move(batch)), IsOk());
    ASSERT_THAT(store->Flush(true), IsOk());
    if (file == 0) {
      EXPECT_GT(store->Stats().disk_bytes, kRawBytes);
    }
  }
  const int64_t end = SystemClock()->MonotonicMicros() + kPatienceMicros;
  SeededRng rng(1);
  while (store->Stats().disk_bytes > kRawBytes / 100 * 85 && SystemClock()->MonotonicMicros() < end) {
    const uint64_t number = rng.Below(kKeys);
    ASSERT_THAT(store->Get(KeyOf(number)), IsOkAndHolds(Optional(texts[number])));
  }
  EXPECT_LE(store->Stats().disk_bytes, kRawBytes / 100 * 85);
  for (int i = 0; i < kKeys; ++i) ASSERT_THAT(store->Get(KeyOf(i)), IsOkAndHolds(Optional(texts[i])));
}

TEST(RocksDbFiles, ABulkLoadDoesNotWaitForZstd) {
  const TempDir dir;
  const std::unique_ptr<StoreFactory> factory = NewFactory();
  {
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto loader, factory->NewBulkLoader(dir.Join("db")));
    const std::vector<std::string> texts = RandomTexts(1);
    for (int i = 0; i < kKeys; ++i) ASSERT_THAT(loader->Add(KeyOf(i), texts[i]), IsOk());
    ASSERT_THAT(loader->Finish(), IsOk());
  }
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto store, factory->Open(dir.Join("db")));
  EXPECT_GT(store->Stats().disk_bytes, kRawBytes);
}

}  // namespace
}  // namespace towline::test
