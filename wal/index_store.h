// The seek indexes of sealed segments: a bounded cache in front of the index files. Internal to wal.

#ifndef TOWLINE_WAL_INDEX_STORE_H_
#define TOWLINE_WAL_INDEX_STORE_H_

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "wal/index.h"
#include "wal/segment.h"

namespace towline::wal {

using SharedIndex = std::shared_ptr<const IndexEntries>;

// What reading a segment from its start gave: the index up to the first damage, if there is one.
struct BuiltIndex {
  IndexEntries entries;
  LogEnd end;           // behind the last frame that could be read
  absl::Status damage;  // OK = the segment was read to its end, which is the one that its footer names
};

// Reads a whole segment.
BuiltIndex BuildIndex(const SegmentSpan& span, uint64_t interval);

// Threads: all methods from any thread.
class IndexStore {
 public:
  IndexStore(FileSystem& fs, std::string directory, uint64_t cache_bytes, uint64_t interval, Logger& logger);

  // Takes the index of a segment that was just sealed, or built anew, and queues it for WriteOne.
  void Add(const IndexOwner& owner, SharedIndex index) TOWLINE_EXCLUDES(mutex_);

  // The index from memory or from its file; nullptr if it has to be built.
  SharedIndex Get(const SegmentSpan& span) TOWLINE_EXCLUDES(mutex_);

  // The index from its file, whatever is cached, or what waits to be written there; nullptr if the file cannot be used.
  SharedIndex Load(const SegmentSpan& span) const TOWLINE_EXCLUDES(mutex_);

  // Forgets what is known of the segment's index and builds it from the segment. After a damage the index is not kept.
  BuiltIndex Rebuild(const SegmentSpan& span) TOWLINE_EXCLUDES(mutex_);

  // Writes one queued index to its file. False if none was queued. A failure is logged: the file will be missing, no
  // more.
  bool WriteOne() TOWLINE_EXCLUDES(mutex_);

  // The segment is being removed.
  void Forget(Lsn first_lsn) TOWLINE_EXCLUDES(mutex_);

 private:
  struct Cached {
    SharedIndex index;
    std::list<Lsn>::iterator use;
  };
  struct Queued {
    IndexOwner owner;
    SharedIndex index;
  };

  SharedIndex FindQueued(Lsn first_lsn) const TOWLINE_REQUIRES(mutex_);
  void Insert(Lsn first_lsn, SharedIndex index) TOWLINE_REQUIRES(mutex_);
  void Erase(Lsn first_lsn) TOWLINE_REQUIRES(mutex_);

  FileSystem& fs_;
  const std::string directory_;
  const uint64_t cache_bytes_;
  const uint64_t interval_;
  Logger& logger_;
  mutable Mutex mutex_;
  std::map<Lsn, Cached> cache_ TOWLINE_GUARDED_BY(mutex_);
  std::list<Lsn> uses_ TOWLINE_GUARDED_BY(mutex_);  // newest first
  uint64_t used_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;
  std::deque<Queued> queue_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_INDEX_STORE_H_
