// Log records as JSON: the same lines from `tail` and `wal dump`.

#ifndef TOWLINE_CTL_RECORD_JSON_H_
#define TOWLINE_CTL_RECORD_JSON_H_

#include <cstdint>

#include "absl/strings/string_view.h"

#include "client/proto_json.h"
#include "towline/v1/change.pb.h"

namespace towline::ctl {

// {lsn, term, commit_time_us, chain, type, ...}: batch adds operations and request_id, term_start adds term_start,
// members adds members and min_replicas.
Json RecordJson(uint64_t lsn, uint64_t term, uint64_t commit_time_us, uint64_t chain, const v1::Change& change);

// Keeps the operations that touch keys with this prefix. False if nothing is left: control records, messages and
// batches elsewhere.
bool KeepPrefix(absl::string_view prefix, v1::Change* change);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_RECORD_JSON_H_
