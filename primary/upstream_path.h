// The way of the records from the primary to this node, and who must not pull because of it.

#ifndef TOWLINE_PRIMARY_UPSTREAM_PATH_H_
#define TOWLINE_PRIMARY_UPSTREAM_PATH_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

#include "primary/node_view.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

struct PathProblem {
  const char* reason;  // loop, path_too_long
  std::string message;
  const char* next_action;
};

// Why the replica `owner` must not pull from `node`; nullopt if it may.
std::optional<PathProblem> FindPathProblem(const NodeView& node, absl::string_view owner);

// The node's own id, then its path.
void EncodePath(const NodeView& node, google::protobuf::RepeatedPtrField<std::string>* out);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_UPSTREAM_PATH_H_
