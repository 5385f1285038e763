// A skip list memtable for batches in key order.
//
// RocksDB's own skip list searches from the top for every key that does not directly follow the one before. This one
// is the same list, entered from the place of the last insertion in the same key space: neighbours in a sorted batch
// are close together, so the search stays near the bottom. RocksDB's option for that,
// memtable_insert_with_hint_prefix_extractor, mixes up its hints of keys and of range deletes before 9.2; here range
// deletes have a list of their own that takes no hint.

#ifndef TOWLINE_STORE_ROCKSDB_HINTED_MEMTABLE_H_
#define TOWLINE_STORE_ROCKSDB_HINTED_MEMTABLE_H_

#include <memory>

#include "rocksdb/memtablerep.h"

namespace towline {

// For one writing thread (allow_concurrent_memtable_write = false).
std::shared_ptr<rocksdb::MemTableRepFactory> NewHintedMemtableFactory();

}  // namespace towline

#endif  // TOWLINE_STORE_ROCKSDB_HINTED_MEMTABLE_H_
