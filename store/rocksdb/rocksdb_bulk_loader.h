// Builds a RocksDB store out of sorted files.

#ifndef TOWLINE_STORE_ROCKSDB_ROCKSDB_BULK_LOADER_H_
#define TOWLINE_STORE_ROCKSDB_ROCKSDB_BULK_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "rocksdb/sst_file_writer.h"
#include "rocksdb/write_batch.h"
#include "store/store.h"

namespace towline {

// The target database is open while it is being filled: a sorted file is moved into it whenever one is full, the
// unordered keys are written as usual, and Finish flushes them and closes it.
class RocksDbBulkLoader : public StoreBulkLoader {
 public:
  static absl::StatusOr<std::unique_ptr<StoreBulkLoader>> Create(const rocksdb::Options& options,
                                                                 const std::string& directory);
  ~RocksDbBulkLoader() override;

  absl::Status Add(absl::string_view key, absl::string_view value) override;
  absl::Status AddUnordered(absl::string_view key, absl::string_view value) override;
  uint64_t pending_bytes() const override { return pending_bytes_; }
  absl::Status Finish() override;

 private:
  RocksDbBulkLoader(const rocksdb::Options& options, std::string directory);

  absl::Status OpenFile();
  absl::Status CloseFile();
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
  std::string last_key_;
  bool started_ = false;

  rocksdb::WriteBatch unordered_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_ROCKSDB_BULK_LOADER_H_
