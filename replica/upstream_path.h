// What the upstream tells of its way to the primary.

#ifndef TOWLINE_REPLICA_UPSTREAM_PATH_H_
#define TOWLINE_REPLICA_UPSTREAM_PATH_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"

namespace towline {

using UpstreamPath = std::vector<std::string>;  // node ids from the upstream to the primary

// The path as it was told, cut behind `own_id`: what follows there is our own path, and would grow with every answer.
// INVALID_ARGUMENT, reason malformed | path_too_long.
absl::StatusOr<UpstreamPath> PathFromProto(const google::protobuf::RepeatedPtrField<std::string>& node_ids,
                                           const std::string& own_id);

// FAILED_PRECONDITION, reason loop, if the path leads over `own_id`.
absl::Status CheckPath(const UpstreamPath& path, const std::string& own_id);

// Whether this reason, with which an upstream ends a stream, is one that only a change of somebody's upstream ends.
bool IsPathReason(const std::string& reason);

}  // namespace towline

#endif  // TOWLINE_REPLICA_UPSTREAM_PATH_H_
