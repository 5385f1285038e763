// The log on disk: appends groups of frames durably, recovers them, serves cursors, removes what nobody needs.
//
// Formats: docs/formats/segment_v1.md, frame_v1.md, index_v1.md. Recovery: docs/formats/recovery.md and the table in
// wal/recovery.cc. Directory: one generation's `wal/`.
//
// Durability: Append returns OK only after a completed fdatasync of every byte, and after the directory sync for a new
// segment. Readers see only durable records. A failed write or sync poisons the spool: every later Append returns
// DATA_LOSS, reason wal_poisoned. No space for a new segment is RESOURCE_EXHAUSTED, reason disk_full: nothing was
// written, and a later Append may succeed.

#ifndef TOWLINE_WAL_SPOOL_H_
#define TOWLINE_WAL_SPOOL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/rng.h"
#include "common/types.h"
#include "wal/frame.h"

namespace towline::wal {

struct SpoolOptions {
  uint64_t segment_bytes = 64ull << 20;  // 64 KiB or more; a segment grows for a larger single record
  int spare_segments = 2;                // zero-filled ahead; up to two more are kept of removed ones
  // Newest groups kept in memory for tailing cursors; who is further behind reads the page cache. No more than fits the
  // processor's cache: a larger one makes every group's memory cold.
  uint64_t tail_cache_bytes = 1ull << 20;
  uint64_t index_interval_bytes = 64 << 10;
  uint64_t index_cache_bytes = 16ull << 20;               // indexes of sealed segments kept in memory
  uint64_t scrub_bytes_per_second = 0;                    // sealed segments are read again at this rate; 0 = never
  int64_t scrub_interval_micros = 24ll * 3600 * 1000000;  // from the start of one pass to the start of the next
};

// A position that proves a record was durable once.
struct Watermark {
  std::string source;  // control, slot:<name>, store
  Lsn lsn = 0;
};

// What the caller knows about the log before it is opened.
struct RecoveryInputs {
  ClusterId cluster_id;
  uint64_t generation = 1;
  Position base;           // the spool's first record ever is base.lsn + 1
  Lsn first_retained = 0;  // persisted; segments wholly below it are removed unread. 0 = base.lsn + 1
  std::vector<Watermark> watermarks;
};

// What recovery found and did, for the log and for the caller.
struct RecoveryReport {
  std::string row;  // name of the matching row of the recovery table
  LogEnd end;
  Lsn watermark = 0;  // highest of all sources
  std::string watermark_source;
  uint64_t rewritten_records = 0;  // valid above the watermark: written and synced again
  uint64_t quarantined_bytes = 0;
  std::string quarantine_file;  // empty = none
  uint64_t segments = 0;
  // TERM_START frames in the scanned newest segment: (LSN, payload).
  std::vector<std::pair<Lsn, std::string>> term_starts;
};

// Consecutive records of sealed segments that the disk has damaged.
struct DamagedRange {
  Lsn first_lsn = 0;      // 0 = not known
  Lsn last_lsn = 0;       // inclusive; as far as is known
  bool readable = false;  // only the segment's header or footer is: the records can be read, but not opened again
  std::string file;
  uint64_t offset = 0;  // where it was met
  std::string what;
};

// Background verification. Fields of the last pass are 0 before the first one has ended.
struct ScrubStats {
  uint64_t passes = 0;           // completed since open
  uint64_t bytes = 0;            // read since open
  uint64_t indexes_rebuilt = 0;  // in completed passes since open
  int64_t last_pass_end_us = 0;  // Unix microseconds
  int64_t last_pass_micros = 0;
  uint64_t last_pass_bytes = 0;
  uint64_t last_pass_segments = 0;
  uint64_t last_pass_damages = 0;
};

struct SpoolStats {
  Lsn first_lsn = 0;  // first retained; base.lsn + 1 if empty
  Lsn durable_lsn = 0;
  uint64_t retained_bytes = 0;  // bytes of segments that hold or held records, spares apart
  uint64_t segments = 0;
  uint64_t appended_records = 0;  // since open
  uint64_t appended_bytes = 0;    // since open, frames
  uint64_t groups = 0;            // since open
  uint64_t fsyncs = 0;            // since open, of the append path
  double fsync_seconds_sum = 0;
  std::vector<float> fsync_recent_seconds;  // last 1024, unordered
  bool poisoned = false;
  bool disk_full = false;
  ScrubStats scrub;
  std::vector<DamagedRange> damaged;  // by first LSN; met by readers or by the scrub, and still there
};

// Consecutive shipped parts.
struct ShippedBatch {
  LogEnd before;
  LogEnd after;       // after.lsn == before.lsn: nothing is there yet
  std::string bytes;  // shipped parts, one behind the other

  bool empty() const { return after.lsn == before.lsn; }
};

// Reads durable records in order; pins the segment that it reads.
// Threads: external synchronization; different cursors are independent. Must not outlive its spool.
class Cursor {
 public:
  virtual ~Cursor() = default;

  // The next records, at least one and at most about `max_bytes` of shipped parts; empty at the durable end.
  // OUT_OF_RANGE, reason wal_removed: the record is below the first retained one. DATA_LOSS, reason wal_damaged: it
  // cannot be read. Checks header and payload CRCs and the chain of everything that it reads from disk.
  virtual absl::StatusOr<ShippedBatch> Next(size_t max_bytes) = 0;

  // LSN of the record that Next will start with.
  virtual Lsn next_lsn() const = 0;
};

// Keeps records from a position on while it lives.
class Pin {
 public:
  virtual ~Pin() = default;
  virtual void MoveTo(Lsn first_needed) = 0;  // may move either way, never below the first retained record
};

// Threads: Append from one thread at a time; everything else from any thread.
class Spool {
 public:
  virtual ~Spool() = default;

  // Writes and syncs the group, then publishes it to cursors and listeners. Requires group->before to be end().
  virtual absl::Status Append(std::shared_ptr<FrameGroup> group) = 0;

  // End of the durable log.
  virtual LogEnd end() const = 0;

  // A cursor whose first record is `from` (1 or more, at most end().lsn + 1). Errors as Cursor::Next.
  virtual absl::StatusOr<std::unique_ptr<Cursor>> NewCursor(Lsn from) = 0;

  // Log end just behind record `lsn`: its term, chain and commit time. lsn = base LSN is answered from the inputs.
  // OUT_OF_RANGE if it is not retained.
  virtual absl::StatusOr<LogEnd> EndAt(Lsn lsn) = 0;

  // First record with commit time >= `time_us`; end().lsn + 1 if there is none.
  virtual absl::StatusOr<Lsn> SeekTime(int64_t time_us) = 0;

  // Bytes of log behind record `lsn`, exact to one index interval. 0 at or above the end.
  virtual uint64_t BytesBehind(Lsn lsn) const = 0;

  // Keeps records from `first_needed` on.
  virtual std::unique_ptr<Pin> NewPin(Lsn first_needed) = 0;

  // Removes whole segments that hold nothing at or above min(`first_needed`, all pins) and at least `keep_bytes` from
  // the end. `save_first_retained` is called with the new first LSN before anything is removed; if it fails nothing
  // is removed. Returns the first retained LSN. Never blocks Append for longer than a list operation.
  virtual absl::StatusOr<Lsn> Prune(Lsn first_needed, uint64_t keep_bytes,
                                    const std::function<absl::Status(Lsn)>& save_first_retained) = 0;

  virtual SpoolStats stats() const = 0;

  // `fn` is called after each publish, on the appending thread, with the durable LSN; it must be quick. Returns an
  // id for RemoveListener, which returns only when no call is running.
  virtual uint64_t AddDurableListener(std::function<void(Lsn)> fn) = 0;
  virtual void RemoveListener(uint64_t id) = 0;
};

struct SpoolEnvironment {
  FileSystem& fs;
  Clock& clock;
  Rng& rng;
  Executor& executor;  // for the preparer of spare segments
  Logger& logger;
};

// Opens and recovers the spool in `directory` (created if absent); torn tails are copied to `quarantine_directory`.
// Errors: DATA_LOSS, reason wal_corrupt, with file, offset and LSN, nothing changed on disk; other codes for I/O.
absl::StatusOr<std::unique_ptr<Spool>> OpenSpool(SpoolEnvironment env, const std::string& directory,
                                                 const std::string& quarantine_directory, const SpoolOptions& options,
                                                 const RecoveryInputs& inputs, RecoveryReport* report);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SPOOL_H_
