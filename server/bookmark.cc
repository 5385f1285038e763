#include "server/bookmark.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"

namespace towline {
namespace {

constexpr uint32_t kWaitDefaultMs = 1000;
constexpr uint32_t kWaitMaxMs = 30'000;
constexpr int64_t kAnsweredWaitMicros = 1'000'000;

// Where else to ask.
std::string Elsewhere(const NodeView& view) {
  return view.primary_address.empty() ? "read from the primary, or later"
                                      : absl::StrCat("read from the primary at ", view.primary_address, ", or later");
}

absl::Status CheckLine(const NodeView& view, const v1::Position& position) {
  if (!position.cluster_id().empty() && position.cluster_id() != view.cluster_id) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "cluster_mismatch",
        absl::StrCat("the position is of cluster ", position.cluster_id(), ", this node of ", view.cluster_id),
        "use the positions of each cluster for itself");
  }
  const HistoryEntry* entry = EntryAt(view.history, position.lsn());
  // A term that this node has not seen yet may still come.
  const Term newest = view.history.empty() ? 0 : view.history.back().term;
  if (entry == nullptr || position.term() > newest) return absl::OkStatus();
  if (entry->term == position.term() && (position.term_id() == 0 || entry->term_id == position.term_id())) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, "position_discarded",
                   absl::StrCat("LSN ", position.lsn(), " of term ", position.term(), " is not on this node's line, ",
                                FormatHistory(view.history)),
                   "what was written there was given up, or this node is behind: read it again from the primary");
}

absl::Status CheckBootstrap(Node& node, const NodeView& view, Lsn applied, Lsn wanted) {
  const auto status = node.ReplicaStatus();
  if (!status || !status->bootstrap) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "rebootstrapping",
                   absl::StrCat("node ", view.node_id, " loads a snapshot (", status->bootstrap->phase,
                                "): its state stands at LSN ", applied, ", asked for is LSN ", wanted),
                   Elsewhere(view));
}

// What the state holds now may be about to be given up.
absl::Status CheckRewind(Node& node, const NodeView& view, Lsn wanted) {
  const auto status = node.ReplicaStatus();
  if (!status || status->state != "rewinding") return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "rewinding",
                   absl::StrCat("node ", view.node_id,
                                " gives up records that its upstream does not have; asked for is ", "LSN ", wanted),
                   Elsewhere(view));
}

}  // namespace

absl::Status AwaitPosition(Node& node, const v1::Position& position, uint32_t wait_ms) {
  if (position.lsn() == 0 || wait_ms > kWaitMaxMs) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_position",
                     absl::StrCat("min_position has LSN ", position.lsn(), ", wait_ms is ", wait_ms,
                                  "; at least 1, at most ", kWaitMaxMs));
  }
  const auto live = node.Live();
  if (live == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, "no_data", "the node has no data yet", "read from another node");
  }
  const NodeView view = node.View();
  TOWLINE_RETURN_IF_ERROR(CheckRewind(node, view, position.lsn()));
  TOWLINE_RETURN_IF_ERROR(CheckLine(view, position));
  if (live->applier().applied_lsn() >= position.lsn()) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(CheckBootstrap(node, view, live->applier().applied_lsn(), position.lsn()));

  Node::BookmarkSlot slot(node);
  const int64_t micros = int64_t{wait_ms == 0 ? kWaitDefaultMs : wait_ms} * 1000;
  if (!slot.taken() || !live->applier().WaitApplied(position.lsn(), micros)) {
    return MakeError(absl::StatusCode::kUnavailable, "behind",
                     absl::StrCat("the state stands at LSN ", live->applier().applied_lsn(), ", asked for is LSN ",
                                  position.lsn(), slot.taken() ? "" : ", and enough readers wait already"),
                     Elsewhere(view));
  }
  return CheckLine(node.View(), position);  // the terms up to there are known now
}

absl::Status AwaitAnswered(Node& node) {
  const Sequencer* const sequencer = node.sequencer();
  const auto live = node.Live();
  if (sequencer == nullptr || live == nullptr) return absl::OkStatus();
  const Lsn answered = sequencer->answered_lsn();
  Applier& applier = live->applier();
  if (applier.applied_lsn() >= answered) return absl::OkStatus();
  if (!applier.waits_for_disk() && applier.WaitApplied(answered, kAnsweredWaitMicros)) return absl::OkStatus();
  const bool full = applier.waits_for_disk();
  return MakeError(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
                   full ? "disk_full" : "behind",
                   absl::StrCat("the state stands at LSN ", applier.applied_lsn(), ", writes are answered to LSN ",
                                answered, full ? ": the store finds no space" : ""),
                   full ? "free space on the disk of the data directory, then retry" : "retry");
}

}  // namespace towline
