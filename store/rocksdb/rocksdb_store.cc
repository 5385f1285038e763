#include "store/rocksdb/rocksdb_store.h"

#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/mutex.h"
#include "rocksdb/db.h"
#include "rocksdb/utilities/checkpoint.h"
#include "rocksdb/version.h"
#include "store/rocksdb/file_sums.h"
#include "store/rocksdb/rocksdb_batch.h"
#include "store/rocksdb/rocksdb_bulk_loader.h"
#include "store/rocksdb/rocksdb_util.h"

namespace towline {
namespace {

// A memtable with more range tombstones than this is flushed: reads would build an index of them after every write.
constexpr size_t kRangesPerMemtableMax = 512;
constexpr size_t kBatchReserveBytes = 1 << 20;
// Memory of a batch that is not kept for the next one.
constexpr size_t kSpareBatchBytesMax = 16 << 20;

absl::StatusOr<std::optional<std::string>> Lookup(rocksdb::DB& db, const rocksdb::ReadOptions& options,
                                                  absl::string_view key) {
  std::string value;
  const rocksdb::Status status = db.Get(options, ToSlice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(status, "cannot read the store"));
  return std::optional<std::string>(std::move(value));
}

class RocksDbSnapshot : public StoreSnapshot {
 public:
  explicit RocksDbSnapshot(rocksdb::DB& db) : db_(db), snapshot_(db.GetSnapshot()) {}
  ~RocksDbSnapshot() override { db_.ReleaseSnapshot(snapshot_); }

  absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) const override {
    rocksdb::ReadOptions options;
    options.snapshot = snapshot_;
    return Lookup(db_, options, key);
  }

  std::unique_ptr<StoreIterator> NewIterator(absl::string_view lower, absl::string_view upper,
                                             bool fill_cache) const override {
    rocksdb::ReadOptions options;
    options.snapshot = snapshot_;
    options.fill_cache = fill_cache;
    return NewRocksDbIterator(db_, options, lower, upper);
  }

 private:
  rocksdb::DB& db_;
  const rocksdb::Snapshot* const snapshot_;
};

class RocksDbStore : public Store {
 public:
  RocksDbStore(std::unique_ptr<rocksdb::DB> db, std::string directory)
      : db_(std::move(db)), directory_(std::move(directory)) {}

  std::unique_ptr<StoreBatch> NewBatch() override {
    MutexLock lock(&mutex_);
    if (!has_spare_) return std::make_unique<RocksDbBatch>(rocksdb::WriteBatch(kBatchReserveBytes));
    has_spare_ = false;
    return std::make_unique<RocksDbBatch>(std::move(spare_));
  }

  absl::Status Write(std::unique_ptr<StoreBatch> store_batch) override {
    RocksDbBatch& batch = static_cast<RocksDbBatch&>(*store_batch);
    TOWLINE_RETURN_IF_ERROR(FromRocksDb(batch.status(), "cannot build a batch"));
    size_t ranges = 0;
    if (batch.has_ranges()) {
      TOWLINE_RETURN_IF_ERROR(FromRocksDb(NarrowRanges(*db_, &batch.rep(), &ranges), "cannot build a batch"));
    }
    TOWLINE_RETURN_IF_ERROR(FromRocksDb(db_->Write(UnloggedWrite(), &batch.rep()), "cannot write to the store"));
    KeepSpare(std::move(batch.rep()));
    ranges_in_memtable_ += ranges;
    if (ranges_in_memtable_ < kRangesPerMemtableMax) return absl::OkStatus();
    ranges_in_memtable_ = 0;
    return Flush(/*wait=*/false);
  }

  absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) override {
    return Lookup(*db_, rocksdb::ReadOptions(), key);
  }

  absl::StatusOr<std::optional<std::string>> GetPersisted(absl::string_view key) override {
    rocksdb::ReadOptions options;
    options.read_tier = rocksdb::kPersistedTier;
    return Lookup(*db_, options, key);
  }

  absl::StatusOr<std::shared_ptr<const StoreSnapshot>> Snapshot() override {
    return std::make_shared<const RocksDbSnapshot>(*db_);
  }

  absl::Status Flush(bool wait) override {
    rocksdb::FlushOptions options;
    options.wait = wait;
    options.allow_write_stall = !wait;  // else even a flush without waiting could block here
    return FromRocksDb(db_->Flush(options), absl::StrCat("cannot flush ", directory_));
  }

  absl::StatusOr<FileSums> Checkpoint(const std::string& directory) override {
    rocksdb::Checkpoint* made = nullptr;
    rocksdb::Status status = rocksdb::Checkpoint::Create(db_.get(), &made);
    const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
    // So many bytes of log would make it flush: never.
    constexpr uint64_t kNoFlush = std::numeric_limits<uint64_t>::max();
    if (status.ok()) status = checkpoint->CreateCheckpoint(directory, kNoFlush);
    TOWLINE_RETURN_IF_ERROR(FromRocksDb(status, absl::StrCat("cannot make checkpoint ", directory)));
    TOWLINE_RETURN_IF_ERROR(SyncParent(directory));
    // Of what is live now. A file that was dropped since has none, and one that was added is in no copy.
    std::vector<rocksdb::LiveFileMetaData> files;
    db_->GetLiveFilesMetaData(&files);
    FileSums sums;
    for (const rocksdb::LiveFileMetaData& file : files) {
      const std::optional<uint32_t> sum = FileSumOf(file.file_checksum_func_name, file.file_checksum);
      if (sum.has_value()) sums.emplace(file.relative_filename, *sum);
    }
    return sums;
  }

  StoreStats Stats() override {
    StoreStats stats;
    uint64_t stopped = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kEstimateNumKeys, &stats.estimated_keys);
    db_->GetIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &stats.disk_bytes);
    uint64_t live_bytes = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kLiveSstFilesSize, &live_bytes);
    stats.pinned_bytes = stats.disk_bytes > live_bytes ? stats.disk_bytes - live_bytes : 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kIsWriteStopped, &stopped);
    stats.write_stopped = stopped != 0;
    return stats;
  }

 private:
  // Keeps the memory of a written batch for the next one: mapping and unmapping a megabyte per batch costs more than
  // filling it.
  void KeepSpare(rocksdb::WriteBatch batch) TOWLINE_EXCLUDES(mutex_) {
    if (batch.GetDataSize() > kSpareBatchBytesMax) return;
    batch.Clear();
    MutexLock lock(&mutex_);
    spare_ = std::move(batch);
    has_spare_ = true;
  }

  const std::unique_ptr<rocksdb::DB> db_;
  const std::string directory_;
  size_t ranges_in_memtable_ = 0;  // writing thread only

  Mutex mutex_;
  rocksdb::WriteBatch spare_ TOWLINE_GUARDED_BY(mutex_);
  bool has_spare_ TOWLINE_GUARDED_BY(mutex_) = false;
};

class RocksDbStoreFactory : public StoreFactory {
 public:
  explicit RocksDbStoreFactory(const RocksDbOptions& options)
      : options_(EngineOptions(options, rocksdb::NewLRUCache(options.block_cache_bytes))) {}

  absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& directory) override {
    std::unique_ptr<rocksdb::DB> db;
    TOWLINE_RETURN_IF_ERROR(OpenDatabase(options_, directory, &db));
    return std::make_unique<RocksDbStore>(std::move(db), directory);
  }

  // A newer engine reads the files of an older one, but not the other way round.
  std::string file_form() const override {
    const bool lz4 = options_.compression == rocksdb::kLZ4Compression;
    const bool zstd = options_.bottommost_compression == rocksdb::kZSTD;
    return absl::StrCat("rocksdb-", ROCKSDB_MAJOR, ".", ROCKSDB_MINOR, lz4 ? "+lz4" : "", zstd ? "+zstd" : "",
                        " state-1");
  }

  absl::StatusOr<std::unique_ptr<StoreBulkLoader>> NewBulkLoader(const std::string& directory, BulkLoad mode) override {
    return RocksDbBulkLoader::Create(options_, directory, mode);
  }

 private:
  const rocksdb::Options options_;
};

}  // namespace

std::unique_ptr<StoreFactory> NewRocksDbStoreFactory(RocksDbOptions options) {
  return std::make_unique<RocksDbStoreFactory>(options);
}

}  // namespace towline
