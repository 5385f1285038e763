#include "ctl/drill_guards.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "common/error.h"
#include "common/names.h"

namespace towline::ctl {
namespace {

constexpr uint64_t kLagBytesMax = 16u << 20;
constexpr char kAllDrills[] = "_drill/";

absl::Status Refused(absl::string_view reason, absl::string_view message, absl::string_view next_action) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message, next_action);
}

absl::Status Unhealthy(absl::string_view message) {
  return Refused("unhealthy_cluster", message, "bring all members into order first, or rehearse with --local");
}

// The member answers, is of the cluster and in the state that its role has when all is well.
absl::Status CheckMember(const v1::Member& member, const v1::GetTopologyResponse& topology, int64_t timeout_us) {
  if (member.address().empty()) return Unhealthy(absl::StrCat("member ", member.node_id(), " has no address"));
  TOWLINE_ASSIGN_OR_RETURN(const auto client, AskFresh(member.address(), timeout_us));
  const auto status = client->GetStatus();
  if (!status.ok()) {
    return Unhealthy(absl::StrCat("member ", member.node_id(), ": ", GetErrorInfo(status.status()).message));
  }
  const bool primary = member.node_id() == topology.primary_node_id();
  const std::string wanted = primary ? "writable" : "streaming";
  if (status->node_id() != member.node_id() || status->state() != wanted || !status->exact()) {
    return Unhealthy(absl::StrCat("member ", member.node_id(), " is ", status->state(), ", it must be ", wanted));
  }
  return absl::OkStatus();
}

// All replicas are connected to the primary and near its end.
absl::Status CheckLag(client::Client& primary, const v1::GetTopologyResponse& topology) {
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, primary.GetStatus());
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    if (replica.state() != "streaming" || replica.lag_bytes() > kLagBytesMax) {
      return Unhealthy(absl::StrCat("replica ", replica.node_id(), " is ", replica.state(), " and ",
                                    FormatBytes(replica.lag_bytes()), " behind, at most ", FormatBytes(kLagBytesMax),
                                    " may be"));
    }
  }
  if (topology.members_size() >= 2) return absl::OkStatus();
  return Unhealthy("the cluster has no replica");
}

absl::Status CheckNoOtherDrill(client::Client& primary) {
  v1::ScanRequest request;
  request.set_prefix(kAllDrills);
  request.set_limit(1);
  TOWLINE_ASSIGN_OR_RETURN(const v1::ScanResponse page, primary.Scan(request));
  if (page.entries().empty()) return absl::OkStatus();
  return Refused(
      "drill_running", absl::StrCat("there is a key of a drill: ", Printable(page.entries(0).key())),
      absl::StrCat("if no drill runs, remove what one has left: towctl del ", kAllDrills, " --prefix-range"));
}

}  // namespace

absl::StatusOr<std::vector<DrillNode>> GuardCluster(const std::string& endpoint, int64_t timeout_us,
                                                    const std::string& i_mean_it) {
  TOWLINE_ASSIGN_OR_RETURN(const auto asked, AskFresh(endpoint, timeout_us));
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetTopologyResponse topology, asked->GetTopology());
  if (i_mean_it.empty() || i_mean_it != topology.cluster_id()) {
    return Refused("not_confirmed",
                   absl::StrCat("the drill would pause the writes of cluster ", topology.cluster_id(), " for a moment",
                                i_mean_it.empty() ? "" : absl::StrCat(", and you named ", Printable(i_mean_it))),
                   absl::StrCat("rehearse with --local, or say --i-mean-it ", topology.cluster_id()));
  }
  TOWLINE_ASSIGN_OR_RETURN(const auto primary, AskFresh(topology.primary_address(), timeout_us));
  std::vector<DrillNode> nodes;
  for (const v1::Member& member : topology.members()) {
    TOWLINE_RETURN_IF_ERROR(CheckMember(member, topology, timeout_us));
    const bool first = member.node_id() == topology.primary_node_id();
    nodes.insert(first ? nodes.begin() : nodes.end(), {member.node_id(), member.address()});
  }
  TOWLINE_RETURN_IF_ERROR(CheckLag(*primary, topology));
  TOWLINE_RETURN_IF_ERROR(CheckNoOtherDrill(*primary));
  return nodes;
}

}  // namespace towline::ctl
