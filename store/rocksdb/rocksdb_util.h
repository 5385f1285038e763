// What the parts of the adapter share.

#ifndef TOWLINE_STORE_ROCKSDB_ROCKSDB_UTIL_H_
#define TOWLINE_STORE_ROCKSDB_ROCKSDB_UTIL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "rocksdb/options.h"
#include "rocksdb/slice.h"
#include "store/rocksdb/rocksdb_store.h"

namespace towline {

inline rocksdb::Slice ToSlice(absl::string_view view) { return rocksdb::Slice(view.data(), view.size()); }
inline absl::string_view ToView(const rocksdb::Slice& slice) { return absl::string_view(slice.data(), slice.size()); }

// Keeps code and text; `context` says what was tried, and where.
absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view context);

rocksdb::Options EngineOptions(const RocksDbOptions& options, std::shared_ptr<rocksdb::Cache> cache);

// Must not outlive `db`, nor the snapshot in `options`.
std::unique_ptr<StoreIterator> NewRocksDbIterator(rocksdb::DB& db, const rocksdb::ReadOptions& options,
                                                  absl::string_view lower, absl::string_view upper);

// Writes that the engine's own log does not see.
rocksdb::WriteOptions UnloggedWrite();

// Opens the database and makes its directory durable in the parent.
absl::Status OpenDatabase(const rocksdb::Options& options, const std::string& directory,
                          std::unique_ptr<rocksdb::DB>* db);

absl::Status SyncParent(const std::string& directory);

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_ROCKSDB_UTIL_H_
