// The seam to the storage engine: an ordered map with atomic batches, snapshots and a known persisted prefix.
//
// One engine holds one column family and has one writer. It has no log of its own: after a crash it reopens with a
// prefix of the batches it was given, and GetPersisted tells which. `store/rocksdb` is the real one; `MemoryStore`
// (store/memory_store.h) is for tests and simulation.

#ifndef TOWLINE_STORE_STORE_H_
#define TOWLINE_STORE_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace towline {

// Walks keys in byte order.
// Threads: one thread. Must not outlive its snapshot.
class StoreIterator {
 public:
  virtual ~StoreIterator() = default;

  virtual bool Valid() const = 0;               // false at the end and after an error: see status()
  virtual void Next() = 0;                      // requires Valid()
  virtual absl::string_view key() const = 0;    // until the next Next()
  virtual absl::string_view value() const = 0;  // until the next Next()
  virtual absl::Status status() const = 0;
};

// The content at one moment.
// Threads: all methods from any thread. Must not outlive its store.
class StoreSnapshot {
 public:
  virtual ~StoreSnapshot() = default;

  virtual absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) const = 0;

  // Keys k with lower <= k < upper; empty upper = to the end. `fill_cache` false for long scans.
  virtual std::unique_ptr<StoreIterator> NewIterator(absl::string_view lower, absl::string_view upper,
                                                     bool fill_cache) const = 0;
};

// Changes that take effect together.
// Threads: one thread.
class StoreBatch {
 public:
  virtual ~StoreBatch() = default;

  virtual void Put(absl::string_view key, absl::string_view value) = 0;
  virtual void Delete(absl::string_view key) = 0;
  virtual void DeleteRange(absl::string_view begin, absl::string_view end) = 0;  // half-open
};

// CRC-32C of whole files as the engine wrote them, by name.
using FileSums = std::map<std::string, uint32_t>;

struct StoreStats {
  uint64_t estimated_keys = 0;
  uint64_t disk_bytes = 0;
  uint64_t pinned_bytes = 0;   // of files that only snapshots and iterators still need; part of disk_bytes
  bool write_stopped = false;  // the engine makes writers wait
};

// Threads: Write from one thread at a time; the rest from any thread.
// Errors: DATA_LOSS and INTERNAL are final (the caller stops the node), RESOURCE_EXHAUSTED = disk full.
class Store {
 public:
  virtual ~Store() = default;

  virtual std::unique_ptr<StoreBatch> NewBatch() = 0;

  // Applies a batch made by NewBatch of the same store. Visible at once, persisted by a later flush.
  virtual absl::Status Write(std::unique_ptr<StoreBatch> batch) = 0;

  virtual absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) = 0;

  // The value that the store alone would reopen with after power loss.
  virtual absl::StatusOr<std::optional<std::string>> GetPersisted(absl::string_view key) = 0;

  virtual absl::StatusOr<std::shared_ptr<const StoreSnapshot>> Snapshot() = 0;

  // Starts making everything written so far persistent; with `wait` returns when it is.
  virtual absl::Status Flush(bool wait) = 0;

  // A consistent copy of what is persisted in a new directory, by hard links. Does not flush. Its contents are durable
  // before return, its name once the parent directory is synced. Returns the sums of those of its files of which the
  // engine keeps one.
  // Files of a store are never changed in place, so links to those of a copy make further copies.
  virtual absl::StatusOr<FileSums> Checkpoint(const std::string& directory) = 0;

  virtual StoreStats Stats() = 0;
};

// Fills a store that nobody else uses with sorted data, faster than Write. What was made durable stays when a load is
// broken off, and a later one can go on behind it.
// Threads: external synchronization.
class StoreBulkLoader {
 public:
  virtual ~StoreBulkLoader() = default;

  // Keys must rise strictly over the loader's life. INVALID_ARGUMENT otherwise. RESOURCE_EXHAUSTED: the disk is full,
  // and what was added since the last Commit is lost.
  virtual absl::Status Add(absl::string_view key, absl::string_view value) = 0;

  // For keys that come in another order. They must not lie between keys given to Add.
  virtual absl::Status AddUnordered(absl::string_view key, absl::string_view value) = 0;

  // Bytes given to Add, and to AddUnordered, that are not yet durable in the target directory.
  virtual uint64_t pending_bytes() const = 0;
  virtual uint64_t unordered_pending_bytes() const = 0;

  // Makes durable what was given to Add and, if `unordered`, what was given to AddUnordered. More may be durable.
  virtual absl::Status Commit(bool unordered) = 0;

  // Keys k with lower <= k < upper that are durable in the directory; empty upper = to the end. Must not outlive the
  // loader.
  virtual std::unique_ptr<StoreIterator> NewIterator(absl::string_view lower, absl::string_view upper) = 0;

  // Makes everything durable in the directory. Afterwards StoreFactory::Open finds it there. No other call after it.
  virtual absl::Status Finish() = 0;
};

enum class BulkLoad {
  kNew,     // the directory must not hold a store yet: ALREADY_EXISTS
  kResume,  // go on with what an earlier load made durable there, if anything
};

// Opens and creates stores.
// Threads: all methods from any thread.
class StoreFactory {
 public:
  virtual ~StoreFactory() = default;

  // Opens the store in `directory`, creating an empty one if there is none.
  virtual absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& directory) = 0;

  // What another factory must say too if its stores are to open this one's checkpoints; empty = there is no such other.
  virtual std::string file_form() const { return ""; }

  // A loader for the store in `directory`.
  virtual absl::StatusOr<std::unique_ptr<StoreBulkLoader>> NewBulkLoader(const std::string& directory,
                                                                         BulkLoad mode = BulkLoad::kNew) = 0;
};

}  // namespace towline

#endif  // TOWLINE_STORE_STORE_H_
