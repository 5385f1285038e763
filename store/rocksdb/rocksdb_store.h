// The Store on RocksDB.
//
// One column family, no write-ahead log of its own: what a flush has written is the persisted prefix. A clean close
// flushes. Directories are made durable in their parent; the parent must exist.

#ifndef TOWLINE_STORE_ROCKSDB_ROCKSDB_STORE_H_
#define TOWLINE_STORE_ROCKSDB_ROCKSDB_STORE_H_

#include <cstdint>
#include <memory>

#include "store/store.h"

namespace towline {

struct RocksDbOptions {
  uint64_t block_cache_bytes = 256ull << 20;   // shared by all stores of the factory; holds indexes and filters too
  uint64_t write_buffer_bytes = 128ull << 20;  // that one flush writes; two and a half times as much may be in memory
  int background_jobs = 2;                     // flushes and compactions at a time
};

// Bulk loads keep their files in "<directory>.ingest" until Finish.
std::unique_ptr<StoreFactory> NewRocksDbStoreFactory(RocksDbOptions options);

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_ROCKSDB_STORE_H_
