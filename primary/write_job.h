// A write on its way: from the intake through the sequencer, the log and the state, back to the caller.

#ifndef TOWLINE_PRIMARY_WRITE_JOB_H_
#define TOWLINE_PRIMARY_WRITE_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "wal/frame.h"

namespace towline {

// What an operation does to the keys, for the decisions about later writes. Views point into WriteJob::keep_alive.
struct KeyEffect {
  enum class Kind : uint8_t { kPut, kDelete, kDeleteRange };
  Kind kind = Kind::kPut;
  absl::string_view key;  // begin, for a range
  absl::string_view end;  // exclusive, empty = to the last key; ranges only
  uint64_t expire_at_ms = 0;
};

// A condition, as the API states it.
struct KeyCondition {
  absl::string_view key;
  std::optional<bool> exists;  // exactly one of the two is set
  Lsn modified_lsn = 0;
};

struct RequestKey {
  absl::string_view client_id;
  uint64_t sequence = 0;
};

// What became of one record.
struct WriteOutcome {
  absl::Status status;  // OK: durable and applied
  Position position;    // of the record; of the first write, if duplicate
  bool duplicate = false;
};

// One record to be logged.
struct WriteRecord {
  wal::RecordType type = wal::RecordType::kBatch;
  std::string payload;  // encoded towline.v1.Change
  uint32_t payload_crc = 0;
  std::vector<KeyEffect> effects;
  std::vector<KeyCondition> conditions;
  std::optional<RequestKey> request;
  // Expiry of one key: written only if the key still has this version and has expired.
  bool is_expiry = false;

  WriteOutcome outcome;  // filled by the sequencer
  Lsn lsn = 0;           // assigned; 0 = not written
};

// Records that are answered together. OnDone is called exactly once per submitted job, from any thread, without locks
// held.
class WriteJob {
 public:
  virtual ~WriteJob() = default;
  virtual void OnDone(std::unique_ptr<WriteJob> self) = 0;

  std::vector<WriteRecord> records;
  uint64_t bytes = 0;  // counted against the queue; set by the sequencer
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_WRITE_JOB_H_
