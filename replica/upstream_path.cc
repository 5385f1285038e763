#include "replica/upstream_path.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/names.h"
#include "common/types.h"

namespace towline {

absl::StatusOr<UpstreamPath> PathFromProto(const google::protobuf::RepeatedPtrField<std::string>& node_ids,
                                           const std::string& own_id) {
  if (static_cast<size_t>(node_ids.size()) > kUpstreamPathMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "path_too_long",
                     absl::StrCat("from the upstream to the primary there are ", node_ids.size(),
                                  " nodes, and at most ", kUpstreamPathMax, " are allowed"),
                     "use an upstream that is closer to the primary");
  }
  UpstreamPath path;
  for (const std::string& node_id : node_ids) {
    if (!ValidateName("node id", node_id).ok()) {
      return MakeError(absl::StatusCode::kInvalidArgument, "malformed",
                       absl::StrCat("the upstream's path names a node '", Printable(node_id), "'"));
    }
    path.push_back(node_id);
    if (node_id == own_id) break;
  }
  return path;
}

absl::Status CheckPath(const UpstreamPath& path, const std::string& own_id) {
  if (std::find(path.begin(), path.end(), own_id) == path.end()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "loop",
      absl::StrCat("the upstream gets its records over this node: its path is ", absl::StrJoin(path, ", ")),
      "start one node of the loop with the primary, or a replica of it, as --upstream");
}

bool IsPathReason(const std::string& reason) { return reason == "loop" || reason == "path_too_long"; }

}  // namespace towline
