// The expiry index: an entry (expire_at_ms, key) for every user key with an expiry, and left-overs.
//
// An entry is a hint. It is live if the user key exists with exactly that expiry, else stale: putting or deleting a key
// leaves its earlier entry behind, because looking it up would cost a read per write. Stale entries are removed by a
// walk that goes round the index twice as fast as entries are added, which keeps them in proportion to the live ones.
// Which stale entries a node still holds depends on its past; nothing else does.

#ifndef TOWLINE_STORE_EXPIRY_INDEX_H_
#define TOWLINE_STORE_EXPIRY_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/mutex.h"
#include "store/state_store.h"
#include "store/store.h"

namespace towline {

// Threads: Due from any thread; the rest from the applying thread.
class ExpiryIndex {
 public:
  explicit ExpiryIndex(Store& store) : store_(store) {}

  // Adds the entry of a put to the batch.
  void Add(uint64_t expire_at_ms, absl::string_view key, StoreBatch& batch);

  // Removes some stale entries. They are judged by the state before the batch, so the removals must come before
  // anything else in it.
  absl::Status Sweep(size_t records, StoreBatch& batch);

  // To be called after the batch was written.
  void BatchWritten() TOWLINE_EXCLUDES(mutex_);

  // Up to `limit` live entries with expire_at_ms <= now_ms, oldest first.
  absl::StatusOr<std::vector<StateStore::DueExpiry>> Due(uint64_t now_ms, size_t limit)
      TOWLINE_EXCLUDES(due_mutex_, mutex_);

 private:
  Store& store_;

  // Applying thread only.
  std::string scratch_;
  std::string lowest_added_;   // of the batch in the making; empty = none
  std::string sweep_cursor_;   // where the walk goes on; empty = from the start
  uint64_t sweep_credit_ = 0;  // entries that the walk may look at
  bool maybe_entries_ = true;  // false = the index is empty for sure

  Mutex due_mutex_;  // one Due at a time
  Mutex mutex_;
  std::string due_floor_ TOWLINE_GUARDED_BY(mutex_);          // no live entry lies below; empty = not known
  std::string lowest_since_scan_ TOWLINE_GUARDED_BY(mutex_);  // lowest entry written since Due began; empty = none
};

}  // namespace towline

#endif  // TOWLINE_STORE_EXPIRY_INDEX_H_
