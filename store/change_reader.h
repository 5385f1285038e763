// Reads an encoded towline.v1.Change in place, without copying keys and values.
//
// Stricter than protobuf: what this accepts, protobuf reads in the same way. Refused are a record or operation without
// a known kind, one with two, a second request id, groups, a wrong wire type, sizes beyond the limits of the state
// model, and a relative expiry. Unknown fields are skipped, and so is the content of TermStart and Members.

#ifndef TOWLINE_STORE_CHANGE_READER_H_
#define TOWLINE_STORE_CHANGE_READER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"

namespace towline {

enum class ChangeKind : uint8_t { kBatch = 1, kTermStart = 2, kMembers = 3 };

// One operation; the views point into the payload.
struct ChangeOperation {
  enum class Kind : uint8_t { kPut = 1, kDelete = 2, kDeleteRange = 3, kMessage = 4 };
  Kind kind = Kind::kPut;
  absl::string_view key;    // begin of a range, topic of a message
  absl::string_view value;  // end of a range, payload of a message
  uint64_t expire_at_ms = 0;
  Lsn lsn = 0;
};

// What a change holds besides its operations.
struct ChangeHead {
  ChangeKind kind = ChangeKind::kBatch;
  absl::string_view client_id;  // empty = no request id
  uint64_t sequence = 0;
};

// Appends the operations of `payload` to *operations, with `lsn`. DATA_LOSS, reason record_malformed; *operations may
// then hold a part of them.
absl::Status ReadChange(absl::string_view payload, Lsn lsn, ChangeHead* head, std::vector<ChangeOperation>* operations);

}  // namespace towline

#endif  // TOWLINE_STORE_CHANGE_READER_H_
