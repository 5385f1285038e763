// A batch for RocksDB, and what range deletes in it become.

#ifndef TOWLINE_STORE_ROCKSDB_ROCKSDB_BATCH_H_
#define TOWLINE_STORE_ROCKSDB_ROCKSDB_BATCH_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
#include "store/store.h"

namespace towline {

class RocksDbBatch : public StoreBatch {
 public:
  // Takes over the memory of `spare`, which must be clear.
  explicit RocksDbBatch(rocksdb::WriteBatch spare);

  void Put(absl::string_view key, absl::string_view value) override;
  void Delete(absl::string_view key) override;
  void DeleteRange(absl::string_view begin, absl::string_view end) override;

  // First error of the calls above, such as a batch that is too large.
  const rocksdb::Status& status() const { return status_; }
  rocksdb::WriteBatch& rep() { return rep_; }
  bool has_ranges() const { return has_ranges_; }

 private:
  void Keep(const rocksdb::Status& status);

  rocksdb::WriteBatch rep_;
  rocksdb::Status status_;
  bool has_ranges_ = false;
};

// Rewrites `batch`: a range delete that meets few keys becomes point deletes, because every range tombstone in a
// memtable makes all later reads dearer. `db` must be in the state that the batch will be written to. Sets *ranges to
// the number of range deletes that remain.
rocksdb::Status NarrowRanges(rocksdb::DB& db, rocksdb::WriteBatch* batch, size_t* ranges);

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_ROCKSDB_BATCH_H_
