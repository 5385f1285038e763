// A write on its way: from the intake through the sequencer and the log back to the caller.

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

// A condition, as the API states it. Its views, and all others of a record, point into what the job holds.
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
  absl::Status status;  // OK: durable
  Position position;    // of the record; of the first write, if duplicate
  bool duplicate = false;
};

// One record to be logged.
struct WriteRecord {
  wal::RecordType type = wal::RecordType::kBatch;
  std::string payload;  // encoded towline.v1.Change; the sequencer takes it when it logs it
  uint32_t payload_crc = 0;
  std::vector<KeyCondition> conditions;
  std::optional<RequestKey> request;
  absl::string_view expired_key;  // not empty: a delete that is logged only if this key exists and has expired

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
