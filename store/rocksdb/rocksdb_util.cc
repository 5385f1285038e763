#include "store/rocksdb/rocksdb_util.h"

#include <algorithm>
#include <cstdarg>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "rocksdb/convenience.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"
#include "rocksdb/filter_policy.h"
#include "rocksdb/table.h"
#include "store/rocksdb/file_sums.h"
#include "store/rocksdb/hinted_memtable.h"

namespace towline {
namespace {

// RocksDB's own text log is left out: Debian's build ends the process when that file cannot grow on a full disk. What
// goes wrong comes back as a status.
class NoLog final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

constexpr uint64_t kMiB = 1 << 20;
constexpr int kMemtablesPerFlush = 64;
constexpr int kMemtablesMax = 160;  // flushed and waiting; writers stand still beyond it
constexpr int kZstdLevel = 1;       // 3 takes nearly twice as long (docs/adr/0023)

bool Supports(rocksdb::CompressionType type) {
  const std::vector<rocksdb::CompressionType> all = rocksdb::GetSupportedCompressions();
  return std::find(all.begin(), all.end(), type) != all.end();
}

absl::StatusCode CodeOf(const rocksdb::Status& status) {
  if (status.IsNoSpace()) return absl::StatusCode::kResourceExhausted;
  if (status.IsCorruption()) return absl::StatusCode::kDataLoss;
  if (status.IsInvalidArgument()) return absl::StatusCode::kInvalidArgument;
  if (status.IsIOError()) return absl::StatusCode::kDataLoss;
  return absl::StatusCode::kInternal;
}

class RocksDbIterator : public StoreIterator {
 public:
  RocksDbIterator(rocksdb::DB& db, rocksdb::ReadOptions options, absl::string_view lower, absl::string_view upper)
      : upper_(upper), upper_slice_(upper_) {
    if (!upper_.empty()) options.iterate_upper_bound = &upper_slice_;
    it_.reset(db.NewIterator(options));
    if (upper_.empty() || lower < upper) it_->Seek(ToSlice(lower));
  }

  bool Valid() const override { return it_->Valid(); }
  void Next() override { it_->Next(); }
  absl::string_view key() const override { return ToView(it_->key()); }
  absl::string_view value() const override { return ToView(it_->value()); }
  absl::Status status() const override { return FromRocksDb(it_->status(), "cannot scan the store"); }

 private:
  const std::string upper_;
  const rocksdb::Slice upper_slice_;
  std::unique_ptr<rocksdb::Iterator> it_;
};

}  // namespace

absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view context) {
  if (status.ok()) return absl::OkStatus();
  const absl::StatusCode code = CodeOf(status);
  const bool full = code == absl::StatusCode::kResourceExhausted;
  return MakeError(code, full ? "disk_full" : "store_failed", absl::StrCat(context, ": ", status.ToString()));
}

rocksdb::Options EngineOptions(const RocksDbOptions& options, std::shared_ptr<rocksdb::Cache> cache) {
  rocksdb::Options engine;
  engine.create_if_missing = true;

  // One writer, which never waits for another.
  engine.allow_concurrent_memtable_write = false;
  engine.enable_write_thread_adaptive_yield = false;
  engine.memtable_factory = NewHintedMemtableFactory();
  // Small memtables, because inserting into one that fits the processor's cache (2 MiB by default) is up to twice as
  // fast; several of them make one file, as a large one would.
  engine.write_buffer_size = options.write_buffer_bytes / kMemtablesPerFlush;
  engine.min_write_buffer_number_to_merge = kMemtablesPerFlush;
  engine.max_write_buffer_number = kMemtablesMax;
  // A read that finds nothing, as of a new request id, need not search each of them.
  engine.memtable_prefix_bloom_size_ratio = 0.01;
  engine.memtable_whole_key_filtering = true;
  engine.avoid_flush_during_shutdown = false;

  engine.max_background_jobs = options.background_jobs;
  engine.max_bytes_for_level_base = 512 * kMiB;
  engine.level_compaction_dynamic_level_bytes = true;
  // The log waits behind what flushes and compactions have asked of the disk: they write and read in small pieces, and
  // do not run ahead of the disk. With the usual hint the kernel would add a readahead of its own, of megabytes on
  // some.
  engine.bytes_per_sync = kMiB / 2;
  engine.strict_bytes_per_sync = true;
  engine.compaction_readahead_size = kMiB / 4;
  engine.access_hint_on_compaction_start = rocksdb::Options::NONE;
  engine.max_open_files = -1;

  const rocksdb::CompressionType lower =
      Supports(rocksdb::kLZ4Compression) ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
  engine.compression_per_level = {rocksdb::kNoCompression, rocksdb::kNoCompression, lower};
  engine.compression = lower;
  // Nearly all of a large state lies in the last level, and is sent as it lies there: docs/adr/0023.
  if (Supports(rocksdb::kZSTD)) {
    engine.bottommost_compression = rocksdb::kZSTD;
    engine.bottommost_compression_opts.enabled = true;
    engine.bottommost_compression_opts.level = kZstdLevel;
  }

  rocksdb::BlockBasedTableOptions table;
  table.block_cache = std::move(cache);
  table.block_size = 8 << 10;
  table.checksum = rocksdb::kXXH3;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // Indexes and filters count against the cache, so that memory does not grow with the data.
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  engine.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  engine.file_checksum_gen_factory = NewFileSumFactory();

  engine.info_log = std::make_shared<NoLog>();
  engine.stats_dump_period_sec = 0;
  engine.stats_persist_period_sec = 0;
  return engine;
}

std::unique_ptr<StoreIterator> NewRocksDbIterator(rocksdb::DB& db, const rocksdb::ReadOptions& options,
                                                  absl::string_view lower, absl::string_view upper) {
  return std::make_unique<RocksDbIterator>(db, options, lower, upper);
}

rocksdb::WriteOptions UnloggedWrite() {
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  return options;
}

absl::Status SyncParent(const std::string& directory) {
  const size_t slash = directory.find_last_of('/');
  const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : directory.substr(0, slash);
  std::unique_ptr<rocksdb::FSDirectory> handle;
  rocksdb::FileSystem& fs = *rocksdb::Env::Default()->GetFileSystem();
  rocksdb::IOStatus status = fs.NewDirectory(parent, rocksdb::IOOptions(), &handle, nullptr);
  if (status.ok()) status = handle->Fsync(rocksdb::IOOptions(), nullptr);
  return FromRocksDb(status, absl::StrCat("cannot sync directory ", parent));
}

absl::Status OpenDatabase(const rocksdb::Options& options, const std::string& directory,
                          std::unique_ptr<rocksdb::DB>* db) {
  // Compaction gives way to all that somebody waits for. Where it falls behind, RocksDB slows down what is written.
  (void)options.env->LowerThreadPoolCPUPriority(rocksdb::Env::LOW, rocksdb::CpuPriority::kLow);
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, &opened);
  TOWLINE_RETURN_IF_ERROR(FromRocksDb(status, absl::StrCat("cannot open the store in ", directory)));
  db->reset(opened);
  return SyncParent(directory);
}

}  // namespace towline
