// The node as failover sees it (FailoverHost), and its changes of role.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "server/node.h"
#include "server/standing.h"

namespace towline {
namespace {

constexpr size_t kRoleChangesMax = 32;

}  // namespace

v1::Standing Node::Describe() { return DescribeStanding(*this); }

std::optional<PeerStatus> Node::FindPeer(const std::string& node_id) {
  for (PeerStatus& peer : source_->Peers()) {
    if (peer.kind == slots::SlotKind::kReplica && peer.node_id == node_id) return std::move(peer);
  }
  return std::nullopt;
}

void Node::ResumePulling() {
  pulling_->Release();
  if (!is_primary()) pulling_->Start("");
}

absl::Status Node::TakeOverSlots(Term term) {
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<slots::Slot> lost, source_->TakeOverSlots(term));
  for (const slots::Slot& slot : lost) {
    deps_.logger.Log(LogLevel::kWarning, "slot_not_servable",
                     {{"slot", slot.name},
                      {"confirmed_lsn", slot.confirmed_lsn},
                      {"cause", slot.invalidation.has_value() ? slot.invalidation->cause : ""},
                      {"next_action", "its owner takes a snapshot, or resumes elsewhere"}});
  }
  return absl::OkStatus();
}

void Node::OnRoleChanged(const v1::RoleChange& change) {
  const NodeRole role = directory_.control->Get().role;
  if (role == NodeRole::kPrimary) NameCluster();
  v1::RoleChange noted = change;
  noted.set_time_ms(static_cast<uint64_t>(deps_.clock.WallMicros()) / 1000);
  {
    MutexLock lock(&mutex_);
    if (role_changes_.size() == kRoleChangesMax) role_changes_.erase(role_changes_.begin());
    role_changes_.push_back(std::move(noted));
    ++role_change_counts_[{change.role(), change.reason()}];
    heartbeats_ = HeartbeatLog();  // those of another primary are of no use
    upstream_path_.clear();
  }
  role_.store(role, std::memory_order_release);
  if (role == NodeRole::kReplica) HandOverSlots();
  deps_.logger.Log(
      LogLevel::kWarning, "role_changed",
      {{"role", change.role()}, {"term", change.term()}, {"reason", change.reason()}, {"message", change.message()}});
  // Those that pull from here learn where the records come from now.
  source_->EndSessions(MakeError(absl::StatusCode::kUnavailable, "role_changed",
                                 absl::StrCat("the node is ", change.role(), " now"), "reconnect"));
  source_->OnPathChanged();
}

// What was served here is the next primary's to serve.
void Node::HandOverSlots() {
  const std::string next = directory_.control->Get().promised_candidate;
  if (next.empty() || next == config_.node_id) return;  // it tells itself which slots there are
  if (const absl::Status saved = slots().HandOver(next); !saved.ok()) Fatal(saved);
}

std::vector<v1::RoleChange> Node::RoleChanges() {
  MutexLock lock(&mutex_);
  return role_changes_;
}

std::map<std::pair<std::string, std::string>, uint64_t> Node::RoleChangeCounts() {
  MutexLock lock(&mutex_);
  return role_change_counts_;
}

std::string Node::PrimaryNode() {
  if (is_primary()) return config_.node_id;
  MutexLock lock(&mutex_);
  return upstream_path_.empty() ? "" : upstream_path_.back();
}

}  // namespace towline
