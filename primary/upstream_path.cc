#include "primary/upstream_path.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace towline {

bool ExtendsPath(const ResumeRequest& request) {
  return request.kind == slots::SlotKind::kReplica && !request.temporary;
}

std::optional<PathProblem> FindPathProblem(const NodeView& node, const ResumeRequest& request) {
  if (!ExtendsPath(request)) return std::nullopt;
  const std::string& owner = request.slot;
  const std::vector<std::string>& path = node.upstream_path;
  if (std::find(path.begin(), path.end(), owner) != path.end()) {
    return PathProblem{"loop",
                       absl::StrCat(node.node_id, " itself gets its records over ", owner,
                                    ": its path to the primary is ", absl::StrJoin(path, ", ")),
                       "start one node of the loop with the primary, or a replica of it, as --upstream"};
  }
  if (path.size() + 1 > kUpstreamPathMax) {
    return PathProblem{"path_too_long",
                       absl::StrCat("from ", node.node_id, " to the primary there are ", path.size() + 1,
                                    " nodes, and at most ", kUpstreamPathMax, " are allowed"),
                       "use an upstream that is closer to the primary"};
  }
  return std::nullopt;
}

void EncodePath(const NodeView& node, google::protobuf::RepeatedPtrField<std::string>* out) {
  *out->Add() = node.node_id;
  for (const std::string& node_id : node.upstream_path) *out->Add() = node_id;
}

}  // namespace towline
