// A Store in memory, for tests and simulation.
//
// It behaves as the real engine does at a crash: what was flushed is there again, what was not is gone. With a
// FileSystem a flush writes one file, MEMSTORE, into the store's directory, so that the directory can be linked, moved
// and removed like one of the real engine and a simulated power loss acts on it; without one the factory keeps what was
// flushed.

#ifndef TOWLINE_STORE_MEMORY_STORE_H_
#define TOWLINE_STORE_MEMORY_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "common/file_system.h"
#include "common/mutex.h"
#include "store/store.h"

namespace towline {

struct MemoryStoreOptions {
  FileSystem* file_system = nullptr;  // must outlive the factory; nullptr = what is flushed is kept by the factory
  uint64_t flush_every_batches = 0;   // flushes by itself after so many batches, as a full memtable would; 0 = never
  bool flush_on_close = true;         // as the real engine does
};

// Threads: all methods from any thread.
class MemoryStoreFactory : public StoreFactory {
 public:
  explicit MemoryStoreFactory(MemoryStoreOptions options = {});
  ~MemoryStoreFactory() override;

  absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& directory) override;
  absl::StatusOr<std::unique_ptr<StoreBulkLoader>> NewBulkLoader(const std::string& directory,
                                                                 BulkLoad mode = BulkLoad::kNew) override;

  // The machine stops: stores that are open now can no longer flush, not even when they are closed.
  void Crash();

  struct Disk;

 private:
  const std::shared_ptr<Disk> disk_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_MEMORY_STORE_H_
