// Builds a RocksDB store out of sorted files.

#ifndef TOWLINE_STORE_ROCKSDB_ROCKSDB_BULK_LOADER_H_
#define TOWLINE_STORE_ROCKSDB_ROCKSDB_BULK_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "rocksdb/sst_file_writer.h"
#include "store/rocksdb/sorted_run.h"
#include "store/store.h"

namespace towline {

// The target database is open while it is being filled: a sorted file is synced and moved into it whenever one is full
// or Commit is called; unordered keys are gathered, sorted and moved in as a file of their own.
class RocksDbBulkLoader : public StoreBulkLoader {
 public:
  static absl::StatusOr<std::unique_ptr<StoreBulkLoader>> Create(const rocksdb::Options& options,
                                                                 const std::string& directory, BulkLoad mode);
  ~RocksDbBulkLoader() override;

  absl::Status Add(absl::string_view key, absl::string_view value) override;
  absl::Status AddUnordered(absl::string_view key, absl::string_view value) override;
  uint64_t pending_bytes() const override { return pending_bytes_; }
  uint64_t unordered_pending_bytes() const override { return unordered_.bytes(); }
  absl::Status Commit(bool unordered) override;
  std::unique_ptr<StoreIterator> NewIterator(absl::string_view lower, absl::string_view upper) override;
  absl::Status Finish() override;

 private:
  RocksDbBulkLoader(const rocksdb::Options& options, std::string directory);

  std::string NextPath();
  absl::Status OpenFile();
  absl::Status CloseFile();
  absl::Status TakeIn(const std::string& path, const rocksdb::ExternalSstFileInfo& info);
  absl::Status WriteUnordered();
  void RemoveIngestDirectory();

  const rocksdb::Options options_;
  const std::string directory_;
  const std::string ingest_directory_;
  std::unique_ptr<rocksdb::DB> db_;

  std::unique_ptr<rocksdb::SstFileWriter> writer_;  // null between files
  std::string path_;
  uint64_t files_ = 0;
  uint64_t plain_files_left_ = 0;  // files to write without trying to compress
  uint64_t pending_bytes_ = 0;     // in the open file
  std::string last_key_;           // of the file before
  bool started_ = false;

  SortedRun unordered_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_ROCKSDB_BULK_LOADER_H_
