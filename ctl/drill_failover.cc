// Drills in which another node becomes the primary: kill-primary, partition, switchover.

#include <algorithm>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/error.h"
#include "ctl/drill_run.h"

namespace towline::ctl {
namespace {

constexpr size_t kAloneWrites = 20;  // of level local, that only the old primary has

// The replica that holds most of the newest line.
absl::StatusOr<std::string> BestCandidate(DrillRun& run) {
  std::string best;
  std::tuple<uint64_t, uint64_t> most;
  for (const DrillNode& node : run.Others()) {
    const auto client = run.Ask(node);
    if (!client.ok()) continue;
    const auto answer = (*client)->GetStanding();
    if (!answer.ok() || !answer->standing().exact()) continue;
    const v1::Standing& standing = answer->standing();
    const uint64_t term = standing.history().empty() ? 0 : standing.history().rbegin()->term();
    const std::tuple<uint64_t, uint64_t> holds{term, standing.lsn()};
    if (best.empty() || holds > most) std::tie(best, most) = std::tie(node.node_id, holds);
  }
  if (!best.empty()) return best;
  return MakeError(absl::StatusCode::kUnavailable, "no_candidate", "no replica can be promoted");
}

// Promotes the best replica, as often as it takes, and waits for the first write in the new term.
absl::Status PromoteBest(DrillRun& run) {
  const std::string old_primary = run.primary().node_id;
  TOWLINE_RETURN_IF_ERROR(run.WaitDetected());
  int attempts = 0;
  TOWLINE_RETURN_IF_ERROR(run.Wait("a promotion", [&]() -> absl::StatusOr<bool> {
    ++attempts;
    TOWLINE_ASSIGN_OR_RETURN(const std::string candidate, BestCandidate(run));
    TOWLINE_ASSIGN_OR_RETURN(const auto client, run.Ask(run.node(candidate)));
    TOWLINE_ASSIGN_OR_RETURN(const v1::PromoteResponse response, client->Promote(v1::PromoteRequest()));
    run.Mark("promoted");
    run.history().new_term_from = response.report().term();
    run.set_primary(candidate);
    return true;
  }));
  run.history().notes.push_back(absl::StrCat(run.primary().node_id, " was promoted at the ",
                                             attempts == 1 ? "first" : "last", " of ", attempts, " attempts, in term ",
                                             run.history().new_term_from));
  TOWLINE_RETURN_IF_ERROR(run.WaitAnswered(DrillLevel::kReplicas, 1, run.history().new_term_from));
  for (const DrillNode& node : run.Others()) {
    if (node.node_id != old_primary) TOWLINE_RETURN_IF_ERROR(run.WaitServes(node, ""));
  }
  run.Mark("slots_resumed");
  return absl::OkStatus();
}

// Until writes were answered that began after `since_us`; what began before may have reached a replica.
absl::Status WaitAlone(DrillRun& run, int64_t since_us) {
  return run.WaitWrites("writes that only the old primary has", [since_us](const auto& writes) {
    const auto alone = std::count_if(writes.begin(), writes.end(), [since_us](const DrillWrite& write) {
      return write.level == DrillLevel::kLocal && write.sent_us > since_us && write.answered_us != 0;
    });
    return static_cast<size_t>(alone) >= kAloneWrites;
  });
}

// With the replicas down, until writes were answered that only the primary has.
absl::Status TakeReplicasDown(DrillRun& run) {
  for (const DrillNode& node : run.Others()) run.local().node(node.node_id).process->Kill();
  run.history().notes.push_back("the replicas were down while the last writes of level local were answered");
  return WaitAlone(run, SystemClock()->MonotonicMicros());
}

}  // namespace

absl::Status RunKillPrimary(DrillRun& run) {
  LocalNode& old_primary = run.local().node(run.primary().node_id);
  run.history().rto_until = "first_write";
  if (run.options().replicas_down) TOWLINE_RETURN_IF_ERROR(TakeReplicasDown(run));
  run.Inject();
  old_primary.process->Kill();
  if (run.options().replicas_down) {
    for (const DrillNode& node : run.Others()) {
      TOWLINE_RETURN_IF_ERROR(run.local().Launch(run.local().node(node.node_id)));
    }
  }
  TOWLINE_RETURN_IF_ERROR(PromoteBest(run));
  run.Mark("old_primary_restarted");
  TOWLINE_RETURN_IF_ERROR(run.local().Launch(old_primary));
  return run.WaitServes(run.node(old_primary.node_id), "rejoined");
}

absl::Status RunPartition(DrillRun& run) {
  LocalNode& old_primary = run.local().node(run.primary().node_id);
  run.history().rto_until = "first_write";
  run.history().notes.push_back(
      absl::StrCat(old_primary.node_id,
                   " was cut off by a relay in front of it: what is sent to it waits until the "
                   "network heals; the writers of level local are on its side"));
  run.Inject();
  old_primary.relay->Cut();
  const int64_t cut_us = SystemClock()->MonotonicMicros();
  TOWLINE_RETURN_IF_ERROR(PromoteBest(run));
  TOWLINE_RETURN_IF_ERROR(WaitAlone(run, cut_us));
  run.Mark("healed");
  old_primary.relay->Heal();
  return run.WaitServes(run.node(old_primary.node_id), "rejoined");
}

namespace {

absl::Status SwitchTo(DrillRun& run, const std::string& node_id, const std::string& phase) {
  TOWLINE_ASSIGN_OR_RETURN(const auto client, run.Ask(run.node(node_id)));
  TOWLINE_ASSIGN_OR_RETURN(const v1::SwitchoverResponse response, client->Switchover(v1::SwitchoverRequest()));
  run.Mark(phase);
  run.history().new_term_from =
      run.history().new_term_from == 0 ? response.report().term() : run.history().new_term_from;
  run.set_primary(node_id);
  TOWLINE_RETURN_IF_ERROR(run.WaitAnswered(DrillLevel::kReplicas, 1, response.report().term()));
  for (const DrillNode& node : run.Others()) TOWLINE_RETURN_IF_ERROR(run.WaitServes(node, ""));
  return absl::OkStatus();
}

}  // namespace

absl::Status RunSwitchover(DrillRun& run) {
  const std::string old_primary = run.primary().node_id;
  std::string next = run.options().to;
  if (next.empty()) {
    TOWLINE_ASSIGN_OR_RETURN(next, BestCandidate(run));
  }
  run.history().notes.push_back(absl::StrCat("from ", old_primary, " to ", next));
  run.Inject();
  TOWLINE_RETURN_IF_ERROR(SwitchTo(run, next, "switched"));
  run.Mark("slots_resumed");
  if (!run.options().and_back) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(SwitchTo(run, old_primary, "switched_back"));
  run.Mark("slots_resumed_again");
  return absl::OkStatus();
}

}  // namespace towline::ctl
