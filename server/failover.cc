#include "server/failover.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "common/names.h"
#include "server/failover_running.h"

namespace towline {
namespace {

constexpr int64_t kFenceAgainMicros = 1'000'000;  // between two rounds to absent members
constexpr int64_t kFenceTimeoutMicros = 500'000;  // of one such round
constexpr int64_t kDrainPollMicros = 1'000;       // looks at the candidate's acks
constexpr uint32_t kHandOverMaxMs = 60'000;

v1::FenceResponse Refused(absl::string_view reason, std::string message) {
  v1::FenceResponse response;
  response.set_reason(std::string(reason));
  response.set_message(std::move(message));
  return response;
}

Term LastTerm(const Control& control) { return control.history.empty() ? 0 : control.history.back().term; }

uint64_t LastTermId(const Control& control) { return control.history.empty() ? 0 : control.history.back().term_id; }

// Whether `other` is a primary of the term that `control` is in, from another promotion.
bool IsConflicting(const Control& control, const v1::Standing& other) {
  return other.is_primary() && LastTermOf(other) == LastTerm(control) &&
         other.history().rbegin()->term_id() != LastTermId(control);
}

absl::Status Stale(Term term, const std::string& candidate) {
  ErrorInfo info;
  info.reason = "stale_primary";
  info.message = absl::StrCat("term ", term, " is promised to ", candidate, ": this node is not the primary any more");
  info.next_action = absl::StrCat("write to ", candidate, " once it is the primary");
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

}  // namespace

Failover::Failover(FailoverDependencies deps) : deps_(std::move(deps)) {}

Failover::~Failover() { Stop(); }

void Failover::Start() {
  fencer_ = deps_.replica.environment().executor.Start("fencer", [this] { return StepFencer(); });
  if (!deps_.host.is_primary()) return;
  const Control control_now = control().Get();
  if (LastTerm(control_now) <= 1) return;  // nobody was the primary before
  std::vector<std::string> others;
  for (const MemberInfo& member : control_now.members.members) {
    if (member.node_id != control_now.node_id) others.push_back(member.node_id);
  }
  RepeatFence(others);
}

void Failover::Stop() {
  stopping_.store(true);
  if (fencer_ != nullptr) fencer_->Stop();
}

// --- Fence ---

std::optional<v1::FenceResponse> Failover::CheckFence(const v1::FenceRequest& request) {
  const Control now = control().Get();
  if (request.node_id() != now.node_id) {
    return Refused("wrong_node", absl::StrCat("this is ", now.node_id, ", not ", Printable(request.node_id())));
  }
  if (now.cluster_id.empty() || request.cluster_id() != now.cluster_id) {
    return Refused("cluster_mismatch", absl::StrCat(now.node_id, " belongs to cluster ", now.cluster_id));
  }
  if (request.term() == 0 || request.term() >= std::numeric_limits<Term>::max()) {
    return Refused("invalid_term",
                   absl::StrCat("term ", request.term(), " is not one of 1 to ", std::numeric_limits<Term>::max() - 1));
  }
  const bool promised_so = request.term() == now.promised_term && request.candidate() == now.promised_candidate;
  if (request.term() < now.promised_term || (request.term() == now.promised_term && !promised_so)) {
    return Refused("term_promised",
                   absl::StrCat(now.node_id, " has promised term ", now.promised_term, " to ", now.promised_candidate));
  }
  if (request.term() <= LastTerm(now) && !promised_so) {
    return Refused("stale_term", absl::StrCat("the log of ", now.node_id, " is in term ", LastTerm(now)));
  }
  return std::nullopt;
}

absl::StatusOr<v1::FenceResponse> Failover::Fence(const v1::FenceRequest& request) {
  TOWLINE_RETURN_IF_ERROR(ValidateName("candidate", request.candidate()));
  MutexLock lock(&change_mutex_);
  v1::FenceResponse response;
  if (std::optional<v1::FenceResponse> refused = CheckFence(request)) {
    response = *std::move(refused);
    TellConflict(request);
  } else {
    const absl::Status granted = Grant(request, "fenced");
    if (!granted.ok()) return granted;
    response.set_granted(true);
  }
  *response.mutable_standing() = deps_.host.Describe();
  return response;
}

// Somebody else speaks as the primary of the term that this primary is in: two promotions by force.
void Failover::TellConflict(const v1::FenceRequest& request) {
  const Control now = control().Get();
  const bool ours = request.cluster_id() == now.cluster_id && request.node_id() == now.node_id;
  if (!ours || !request.committed() || !deps_.host.is_primary() || request.term() != LastTerm(now)) return;
  deps_.lifecycle.OnStaleSelf(
      LastTerm(now), "term_conflict",
      absl::StrCat(request.candidate(), " is a primary of term ", request.term(), " too, from another promotion"));
}

// Makes the promise and takes its consequences. A promise that stands already is made again without effect.
absl::Status Failover::Grant(const v1::FenceRequest& request, absl::string_view reason) {
  const Control before = control().Get();
  const Term term = static_cast<Term>(request.term());
  if (before.promised_term == term && before.promised_candidate == request.candidate() &&
      (before.role == NodeRole::kReplica || before.node_id == request.candidate())) {
    return absl::OkStatus();
  }
  const bool was_primary = deps_.host.is_primary();
  if (was_primary) deps_.lifecycle.Close(Stale(term, request.candidate()));
  {
    // A running append ends first: what it made durable is part of what is answered.
    MutexLock gate(&deps_.replica.fence_gate());
    const std::shared_ptr<Generation> live = deps_.replica.LiveGeneration();
    const Lsn end = live == nullptr ? 0 : live->spool().end().lsn;
    const absl::Status saved = control().Update(/*both=*/true, [&](Control& next) {
      next.promised_term = term;
      next.promised_candidate = request.candidate();
      if (!was_primary) return;
      next.role = NodeRole::kReplica;
      SetHistory(CutAt(next.history, end), &next);
      next.recovery = RecoveryState::kNone;
      next.recovery_reason.clear();
    });
    if (!saved.ok()) {
      deps_.replica.environment().on_fatal(saved);
      return saved;
    }
  }
  logger().Log(LogLevel::kWarning, "term_promised",
               {{"term", term}, {"candidate", request.candidate()}, {"was_primary", was_primary}, {"reason", reason}});
  if (was_primary) {
    v1::RoleChange change;
    change.set_role("replica");
    change.set_term(term);
    change.set_reason(std::string(reason));
    change.set_message(absl::StrCat("term ", term, " is promised to ", request.candidate()));
    deps_.host.OnRoleChanged(change);
  }
  deps_.host.StartPulling(request.candidate_address());
  return absl::OkStatus();
}

absl::Status Failover::StepDown(absl::string_view reason, absl::string_view message) {
  MutexLock lock(&change_mutex_);
  // It may have been promoted since: what was shown to it was of the term before.
  if (!deps_.host.is_primary() || !deps_.lifecycle.condemned()) return absl::OkStatus();
  deps_.lifecycle.Close(
      MakeError(absl::StatusCode::kFailedPrecondition, reason, message, "write to the primary of the higher term"));
  const Lsn end = deps_.replica.LiveGeneration()->spool().end().lsn;
  TOWLINE_RETURN_IF_ERROR(control().Update(/*both=*/true, [end](Control& next) {
    next.role = NodeRole::kReplica;
    SetHistory(CutAt(next.history, end), &next);
  }));
  v1::RoleChange change;
  change.set_role("replica");
  change.set_term(LastTerm(control().Get()));
  change.set_reason(std::string(reason));
  change.set_message(std::string(message));
  deps_.host.OnRoleChanged(change);
  deps_.host.StartPulling("");
  return absl::OkStatus();
}

// --- Handing over ---

absl::StatusOr<v1::HandOverResponse> Failover::HandOver(const v1::HandOverRequest& request) {
  const v1::FenceRequest& fence = request.fence();
  TOWLINE_RETURN_IF_ERROR(ValidateName("candidate", fence.candidate()));
  if (request.timeout_ms() == 0 || request.timeout_ms() > kHandOverMaxMs) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_timeout",
                     absl::StrCat("timeout_ms is ", request.timeout_ms(), "; 1 to ", kHandOverMaxMs));
  }
  FailoverRunning running(&running_);
  if (!running.begun()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "handover_running", "a hand-over or promotion runs already",
                     "wait for it");
  }
  if (!deps_.host.is_primary()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "not_primary", "this node is not the primary",
                     "ask the primary");
  }
  TOWLINE_RETURN_IF_ERROR(deps_.lifecycle.CheckOpen());
  {
    MutexLock lock(&change_mutex_);
    if (const std::optional<v1::FenceResponse> refused = CheckFence(fence)) {
      return MakeError(absl::StatusCode::kFailedPrecondition, refused->reason(), refused->message(),
                       "poll again, and ask for a higher term");
    }
  }
  const std::optional<PeerStatus> candidate = deps_.host.FindPeer(fence.candidate());
  if (!candidate.has_value() || !candidate->connected || candidate->state != "streaming") {
    return MakeError(absl::StatusCode::kFailedPrecondition, "candidate_not_connected",
                     absl::StrCat(fence.candidate(), " is ", candidate.has_value() ? candidate->state : "not connected",
                                  "; to take over it must stream from this primary"),
                     "wait until it streams, or choose another node");
  }
  const int64_t begun = clock().MonotonicMicros();
  TOWLINE_RETURN_IF_ERROR(deps_.lifecycle.Pause(MakeError(absl::StatusCode::kUnavailable, "switchover",
                                                          absl::StrCat("the primary hands over to ", fence.candidate()),
                                                          "retry: the pause is short")));
  absl::Status handed = AwaitCandidate(request, begun + int64_t{request.timeout_ms()} * 1000);
  if (handed.ok()) {
    MutexLock lock(&change_mutex_);
    const std::optional<v1::FenceResponse> refused = CheckFence(fence);  // somebody else may have been promised it
    handed = refused.has_value() ? MakeError(absl::StatusCode::kFailedPrecondition, refused->reason(),
                                             refused->message(), "poll again, and ask for a higher term")
                                 : Grant(fence, "switchover");
  }
  if (!handed.ok()) {
    deps_.lifecycle.Resume();
    logger().Log(LogLevel::kWarning, "handover_aborted",
                 {{"candidate", fence.candidate()}, {"reason", GetErrorInfo(handed).reason}});
    return handed;
  }
  v1::HandOverResponse response;
  *response.mutable_standing() = deps_.host.Describe();
  response.set_pause_us(static_cast<uint64_t>(clock().MonotonicMicros() - begun));
  return response;
}

// Until everything that was taken is answered and applied at the candidate.
absl::Status Failover::AwaitCandidate(const v1::HandOverRequest& request, int64_t deadline_micros) {
  const std::shared_ptr<Generation> live = deps_.replica.LiveGeneration();
  Mutex mutex;
  CondVar never;
  while (true) {
    const std::optional<PeerStatus> candidate = deps_.host.FindPeer(request.fence().candidate());
    const Lsn end = live->spool().end().lsn;
    const Lsn applied = candidate.has_value() && candidate->connected ? candidate->applied_lsn : 0;
    if (deps_.lifecycle.drained() && applied >= end) return absl::OkStatus();
    if (clock().MonotonicMicros() >= deadline_micros || stopping_.load()) {
      return MakeError(absl::StatusCode::kDeadlineExceeded, "handover_timeout",
                       absl::StrCat(request.fence().candidate(), " has applied LSN ", applied, " of ", end, " after ",
                                    request.timeout_ms(), " ms"),
                       "writes go on here; wait until it has caught up, or allow a longer pause with --timeout");
    }
    MutexLock lock(&mutex);
    (void)never.WaitFor(&mutex, kDrainPollMicros);
  }
}

// --- Members that were away ---

v1::FenceRequest Failover::MakeFence(Term term, const std::string& node_id) const {
  const Control now = control().Get();
  v1::FenceRequest request;
  request.set_cluster_id(now.cluster_id);
  request.set_term(term);
  request.set_candidate(now.node_id);
  request.set_candidate_address(deps_.own_address());
  request.set_node_id(node_id);
  return request;
}

void Failover::RepeatFence(const std::vector<std::string>& node_ids) {
  {
    MutexLock lock(&absent_mutex_);
    absent_ = node_ids;
  }
  if (fencer_ != nullptr) fencer_->Wake();
}

StepResult Failover::StepFencer() {
  std::vector<std::string> absent;
  {
    MutexLock lock(&absent_mutex_);
    absent = absent_;
  }
  const Control now = control().Get();
  if (absent.empty() || stopping_.load() || !deps_.host.is_primary()) return StepResult::WaitForWake();
  std::vector<std::string> node_ids;
  std::vector<std::string> endpoints;
  std::vector<v1::FenceRequest> requests;
  for (const MemberInfo& member : now.members.members) {
    if (member.address.empty() || std::find(absent.begin(), absent.end(), member.node_id) == absent.end()) continue;
    node_ids.push_back(member.node_id);
    endpoints.push_back(member.address);
    requests.push_back(MakeFence(LastTerm(now), member.node_id));
    requests.back().set_committed(true);
  }
  const auto answers = deps_.peers.Fence(endpoints, requests, kFenceTimeoutMicros);
  std::vector<std::string> left;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok()) {
      left.push_back(node_ids[i]);
      continue;
    }
    logger().Log(LogLevel::kInfo, "member_fenced",
                 {{"member", node_ids[i]},
                  {"term", LastTerm(now)},
                  {"granted", answers[i]->granted()},
                  {"reason", answers[i]->reason()},
                  {"message", answers[i]->message()}});
    const uint64_t promised = answers[i]->standing().promised_term();
    if (!answers[i]->granted() && IsConflicting(now, answers[i]->standing())) {
      deps_.lifecycle.OnStaleSelf(
          LastTerm(now), "term_conflict",
          absl::StrCat(node_ids[i], " is a primary of term ", LastTerm(now), " too, from another promotion"));
    } else if (!answers[i]->granted() && promised > LastTerm(now)) {
      deps_.lifecycle.OnStaleSelf(
          LastTerm(now), "stale_primary",
          absl::StrCat(node_ids[i], " has promised term ", promised, " to ",
                       answers[i]->standing().promised_candidate(), "; this primary is in term ", LastTerm(now)));
    }
  }
  MutexLock lock(&absent_mutex_);
  absent_ = left;
  return left.empty() ? StepResult::WaitForWake() : StepResult::WaitFor(kFenceAgainMicros);
}

}  // namespace towline
