#include "store/rocksdb/rocksdb_store.h"
#include "tests/store/state_test_util.h"

namespace towline::test {

// Small memtables, so that tests reach the engine's files.
std::unique_ptr<StoreFactory> NewEngineUnderTest() {
  RocksDbOptions options;
  options.block_cache_bytes = 8 << 20;
  options.write_buffer_bytes = 1 << 20;
  return NewRocksDbStoreFactory(options);
}

bool EngineIsCheap() { return false; }

}  // namespace towline::test
