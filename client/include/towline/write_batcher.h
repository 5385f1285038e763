// Many records over one stream: batches on the wire, one outcome per record, in order.

#ifndef TOWLINE_WRITE_BATCHER_H_
#define TOWLINE_WRITE_BATCHER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "towline/bookmark.h"
#include "towline/write_set.h"

namespace towline {

struct BatcherOptions {
  size_t window_bytes = 16u << 20;            // of records that are not answered yet; one larger record may pass alone
  size_t batch_bytes = 1u << 20;              // of one message
  size_t batch_records = 4096;                // of one message, at most 65536
  std::optional<WriteDurability> durability;  // of all records; absent = the client's
  std::chrono::milliseconds retry_for{30'000};  // how long it may take without progress before the batcher gives up
};

// What became of one record.
struct RecordAnswer {
  uint64_t number = 0;        // as Add returned it: 1, 2, 3, ...
  absl::Status status;        // OK: written, now or by an earlier attempt
  bool level_reached = true;  // false: written at a lower commit level, where the writer accepts that
};

// Called on a thread of the batcher, in the order of the numbers, once per record, never at the same time. Must not
// call the batcher.
using OnRecordAnswer = std::function<void(const RecordAnswer&)>;

// Survives the loss of its stream: goes to the primary and sends again what is not answered; request ids make that
// safe. Records get their LSNs in the order of Add, unless a node refuses one of them for a moment: a record that
// depends on an earlier one belongs into the same WriteSet, or behind a Flush. Threads: all methods from any thread.
class WriteBatcher {
 public:
  // Ends at once: unanswered records may or may not be written, and are answered with CANCELLED.
  virtual ~WriteBatcher() = default;

  // Queues a record; waits while the window is full. Returns its number. An error says why the batcher has ended;
  // INVALID_ARGUMENT, reason record_too_large, ends nothing.
  virtual absl::StatusOr<uint64_t> Add(WriteSet writes) = 0;

  // Waits until every record added so far is answered and its callback has returned. An error: why the batcher gave up.
  // Refused records are no error here.
  virtual absl::Status Flush() = 0;

  // Flush, then the end: no more records.
  virtual absl::Status Close() = 0;

  // Position of the newest record written; empty = none yet.
  virtual Bookmark position() const = 0;
};

}  // namespace towline

#endif  // TOWLINE_WRITE_BATCHER_H_
