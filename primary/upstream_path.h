// The way of the records from the primary to this node, and who must not pull because of it.

#ifndef TOWLINE_PRIMARY_UPSTREAM_PATH_H_
#define TOWLINE_PRIMARY_UPSTREAM_PATH_H_

#include <optional>
#include <string>

#include "primary/node_view.h"
#include "primary/resync_planner.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

struct PathProblem {
  const char* reason;  // loop, path_too_long
  std::string message;
  const char* next_action;
};

// Whether the owner becomes the next node on the way. Consumers do not, nor does a primary that takes back on a
// temporary slot, up to a given LSN, what it once sent itself.
bool ExtendsPath(const ResumeRequest& request);

// Why that owner must not pull from `node`; nullopt if it may.
std::optional<PathProblem> FindPathProblem(const NodeView& node, const ResumeRequest& request);

// The node's own id, then its path.
void EncodePath(const NodeView& node, google::protobuf::RepeatedPtrField<std::string>* out);

}  // namespace towline

#endif  // TOWLINE_PRIMARY_UPSTREAM_PATH_H_
