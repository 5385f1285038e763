// What the node says of itself, and whether it takes reads and writes.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "server/node.h"

namespace towline {

bool Node::DiskFull() {
  const auto live = Live();
  if (live == nullptr) return false;
  if (live->spool().stats().disk_full || live->applier().waits_for_disk()) return true;
  return role() != nullptr && role()->sink().refused();
}

absl::Status Node::CheckTakesWrites() {
  TOWLINE_RETURN_IF_ERROR(CheckWritable());
  if (!role()->sink().Stuck()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "disk_full",
                   "the store finds no space, and applies nothing until it does",
                   "free space on the disk of the data directory, then retry");
}

absl::Status Node::NotPrimary() {
  ErrorInfo info;
  info.reason = "not_primary";
  const std::string address = View().primary_address;
  info.message = absl::StrCat("node ", config_.node_id, " is a replica");
  info.next_action = address.empty() ? absl::StrCat("write to the primary; its upstream is ", pulling_->endpoint())
                                     : absl::StrCat("write to the primary at ", address);
  info.metadata["primary_address"] = address.empty() ? pulling_->endpoint() : address;
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

absl::Status Node::CheckWritable() {
  if (!is_primary()) return NotPrimary();
  {
    MutexLock lock(&mutex_);
    if (!started_ || stopped_ || fatal_.load()) {
      return MakeError(absl::StatusCode::kUnavailable, "stopping", "the node takes no writes now", "retry");
    }
  }
  return lifecycle_->CheckOpen();
}

absl::Status Node::CheckReadable() {
  const NodeView view = View();
  if (Live() == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, "no_data", "the node has no data yet", "read from another node");
  }
  if (!view.exact) {
    return MakeError(absl::StatusCode::kUnavailable, "not_exact", "the node's state is not exact yet",
                     "read from another node");
  }
  return absl::OkStatus();
}

std::optional<ReplicaStatusView> Node::ReplicaStatus() {
  {
    MutexLock lock(&mutex_);
    if (is_primary() || !started_) return std::nullopt;
  }
  return pulling_->Status();
}

Lsn Node::CommittedLsn() {
  const auto live = Live();
  const Lsn durable = live == nullptr ? 0 : live->spool().end().lsn;
  if (is_primary()) {
    if (role() != nullptr) return role()->commit().CommittedLsn(durable);
    return config_.durability_replicas == 0 && View().members.min_replicas == 0 ? durable : 0;
  }
  const auto status = ReplicaStatus();
  return status ? std::min(durable, status->upstream_committed_lsn) : 0;
}

std::string Node::State(std::string* reason) {
  reason->clear();
  {
    MutexLock lock(&mutex_);
    if (fatal_.load()) {
      *reason = "io_error";
      return "halted";
    }
    if (!started_) return "starting";
  }
  if (is_primary()) {
    *reason = lifecycle_->reason();
    switch (lifecycle_->phase()) {
      case PrimaryLifecycle::Phase::kOpen:
        break;
      case PrimaryLifecycle::Phase::kChecking:
        return "starting";
      case PrimaryLifecycle::Phase::kInactive:
      case PrimaryLifecycle::Phase::kPaused:
      case PrimaryLifecycle::Phase::kReadOnly:
        return "read_only";
      case PrimaryLifecycle::Phase::kRecoveryRequired:
      case PrimaryLifecycle::Phase::kRecovering:
        return "recovery_required";
    }
  }
  const auto live = Live();
  const bool damaged = live != nullptr && !live->spool().stats().damaged.empty();
  if (is_primary()) {
    if (DiskFull()) {
      *reason = "disk_full";
    } else if (damaged) {
      *reason = "wal_damaged";
    } else if (slots().unknown()) {
      *reason = "slots_unknown";
    }
    return "writable";
  }
  const ReplicaStatusView status = pulling_->Status().value_or(ReplicaStatusView());
  *reason = status.halt_reason;
  if (reason->empty() && damaged) *reason = "wal_damaged";
  if (reason->empty() && slots().unknown()) *reason = "slots_unknown";
  return status.state;
}

std::optional<double> Node::StalenessSeconds() {
  const auto live = Live();
  if (live == nullptr) return std::nullopt;
  const int64_t now = deps_.clock.MonotonicMicros();
  MutexLock lock(&mutex_);
  if (heartbeats_.newest().sequence == 0) return std::nullopt;
  const double silence = static_cast<double>(now - heartbeats_.newest().made_micros) / 1e6;
  return std::max(silence, heartbeats_.LagSeconds(live->applier().applied_lsn(), now));
}

}  // namespace towline
