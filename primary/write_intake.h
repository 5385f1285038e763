// Checks a write request and turns it into a record.

#ifndef TOWLINE_PRIMARY_WRITE_INTAKE_H_
#define TOWLINE_PRIMARY_WRITE_INTAKE_H_

#include <cstdint>

#include "absl/status/status.h"

#include "primary/write_job.h"

namespace towline {
namespace v1 {
class WriteRequest;
}

// Fills `record` from `request`; its views point into `request`, which must outlive the job. TTLs become absolute times
// counted from `now_ms`. INVALID_ARGUMENT, reasons empty_write, invalid_key, invalid_range, invalid_ttl,
// invalid_condition, invalid_request_id, record_too_large. Checks nothing that depends on the state.
absl::Status BuildWriteRecord(const v1::WriteRequest& request, uint64_t now_ms, uint64_t record_bytes_max,
                              WriteRecord* record);

// A record that deletes `key`; the view must outlive the job.
void BuildDeleteRecord(absl::string_view key, WriteRecord* record);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_WRITE_INTAKE_H_
