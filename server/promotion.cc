// Becoming the primary: poll, promise, fence, catch up, commit. See failover.h.

#include <algorithm>
#include <map>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/history.h"
#include "common/names.h"
#include "server/failover.h"
#include "server/failover_running.h"
#include "server/recovery.h"

namespace towline {
namespace {

constexpr int64_t kPollDefaultMs = 500;
constexpr int64_t kPollMaxMs = 60'000;
constexpr int64_t kPollMinMs = 50;
constexpr int64_t kSwitchoverDefaultMs = 5'000;
constexpr int64_t kHandOverGraceMicros = 2'000'000;  // for the answer, behind the pause
constexpr int64_t kApplyMicros = 600'000'000;
constexpr int64_t kApplySliceMicros = 250'000;

absl::StatusOr<int64_t> TimeoutMicros(uint32_t asked_ms, int64_t default_ms) {
  const int64_t ms = asked_ms == 0 ? default_ms : asked_ms;
  if (ms >= kPollMinMs && ms <= kPollMaxMs) return ms * 1000;
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_timeout",
                   absl::StrCat("timeout_ms is ", ms, "; ", kPollMinMs, " to ", kPollMaxMs));
}

void FillQuorum(const QuorumCount& count, v1::Quorum* out) {
  out->set_needed(count.needed);
  out->set_present(count.present);
  out->set_total(count.total);
}

// Slots that somebody here can serve and this node cannot, with who can.
std::vector<std::string> UnservableSlots(const PromotionInput& input) {
  std::map<std::string, std::string> others;
  for (const PeerAnswer& peer : input.peers) {
    if (!peer.standing.ok()) continue;
    for (const v1::SlotStanding& slot : peer.standing->slots()) {
      if (slot.name() == input.self.node_id() || !slot.servable()) continue;
      others[slot.name()] = absl::StrCat(slot.name(), ": ", peer.node_id, " holds LSN ", slot.confirmed_lsn() + 1);
    }
  }
  for (const v1::SlotStanding& slot : input.self.slots()) {
    if (slot.servable()) others.erase(slot.name());
  }
  std::vector<std::string> unservable;
  for (const auto& [name, text] : others) unservable.push_back(text);
  return unservable;
}

void FillReport(const PromotionInput& input, const PromotionVerdict& verdict, v1::PromotionReport* report) {
  report->set_node_id(input.self.node_id());
  report->set_start_lsn(input.self.lsn() + 1);
  FillQuorum(verdict.members, report->mutable_members());
  FillQuorum(verdict.counting, report->mutable_counting());
  report->clear_granted();
  for (const std::string& node_id : verdict.granted) report->add_granted(node_id);
  report->clear_absent();
  for (const std::string& text : verdict.absent) report->add_absent(text);
  report->clear_may_be_lost();
  for (const std::string& text : LossOf(input, verdict)) report->add_may_be_lost(text);
  report->set_known_lost_records(verdict.known_lost_records);
  report->clear_unservable_slots();
  for (const std::string& text : UnservableSlots(input)) report->add_unservable_slots(text);
  report->set_forced(!verdict.has_quorum());
}

// `status` of a promotion that has made its promises already.
absl::Status AfterPromise(const absl::Status& status, Term term) {
  ErrorInfo info = GetErrorInfo(status);
  info.metadata["promised_term"] = absl::StrCat(term);
  info.message += absl::StrCat("; term ", term, " is promised already, so that no primary of an older term goes on");
  info.next_action = absl::StrCat(info.next_action, info.next_action.empty() ? "" : "; then ",
                                  "promote any member, the old primary included");
  return MakeError(status.code(), std::move(info));
}

// `status`: of a HandOver call. Without the old primary's own words it may have granted the term all the same.
absl::Status HandOverFailed(const absl::Status& status, const std::string& old_primary, Term term) {
  const ErrorInfo info = GetErrorInfo(status);
  const bool in_its_words = info.reason != "unavailable" && info.reason != "deadline_exceeded" &&
                            info.reason != "cancelled" && info.reason != "unknown" && info.reason != "internal";
  if (in_its_words) return status;
  return MakeError(absl::StatusCode::kUnavailable, "handover_unknown",
                   absl::StrCat(old_primary, " was asked to hand over, and its answer was lost (", info.message,
                                "): either it goes on as the primary, or it has granted term ", term,
                                " to this node and takes no more writes"),
                   absl::StrCat("ask it: towctl status; if it is the primary, repeat the switchover, otherwise promote "
                                "any member"));
}

class Stopwatch {
 public:
  explicit Stopwatch(Clock& clock) : clock_(clock), since_(clock.MonotonicMicros()) {}
  // Microseconds since the last lap.
  uint64_t Lap() {
    const int64_t now = clock_.MonotonicMicros();
    return static_cast<uint64_t>(now - std::exchange(since_, now));
  }

 private:
  Clock& clock_;
  int64_t since_;
};

}  // namespace

// A node on its way to be the primary.
struct Failover::Takeover {
  PromotionInput polled;
  PromotionVerdict verdict;
  bool force = false;
  int64_t timeout_micros = 0;
  std::string reason;  // promotion or switchover
  // The old primary's grant, if it handed over.
  std::optional<v1::Standing> handed_over;

  Term term = 0;
  PromotionInput granted;  // what the members said when they were fenced
  v1::PromotionReport report;
};

PromotionInput Failover::Poll(int64_t timeout_micros) {
  PromotionInput input;
  input.self = deps_.host.Describe();
  std::vector<std::string> endpoints;
  for (const v1::Member& member : OtherMembers(input.self)) {
    input.peers.push_back({member.node_id(), member.address(), absl::UnavailableError("its address is not known")});
    if (!member.address().empty()) endpoints.push_back(member.address());
  }
  auto answers = deps_.peers.AskStandings(endpoints, timeout_micros);
  size_t next = 0;
  for (PeerAnswer& peer : input.peers) {
    if (peer.address.empty()) continue;
    absl::StatusOr<v1::Standing>& answer = answers[next++];
    if (answer.ok() && (answer->node_id() != peer.node_id || answer->cluster_id() != input.self.cluster_id())) {
      peer.standing = absl::UnavailableError(
          absl::StrCat(peer.address, " is node ", Printable(answer->node_id()), " of another cluster or name"));
    } else {
      peer.standing = std::move(answer);
    }
  }
  return input;
}

absl::StatusOr<v1::PromotionReport> Failover::Promote(const v1::PromoteRequest& request) {
  Takeover takeover;
  TOWLINE_ASSIGN_OR_RETURN(takeover.timeout_micros, TimeoutMicros(request.timeout_ms(), kPollDefaultMs));
  takeover.force = request.force();
  takeover.reason = "promotion";
  FailoverRunning running(&running_);
  if (!running.begun()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "promotion_running",
                     "a promotion or hand-over runs already", "wait for it");
  }
  if (deps_.host.is_primary() && deps_.lifecycle.CheckOpen().ok()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "already_primary",
                     "this node is the primary, and takes writes", "nothing is to be done");
  }
  Stopwatch watch(clock());
  takeover.polled = Poll(takeover.timeout_micros);
  takeover.verdict = JudgePromotion(takeover.polled);
  TOWLINE_RETURN_IF_ERROR(CheckPromotion(takeover.polled, takeover.verdict, takeover.force));
  takeover.report.mutable_times()->set_poll_us(watch.Lap());
  if (request.dry_run()) {
    FillReport(takeover.polled, takeover.verdict, &takeover.report);
    takeover.report.set_term(takeover.verdict.term);
    return takeover.report;
  }
  TOWLINE_RETURN_IF_ERROR(Take(&takeover));
  return takeover.report;
}

absl::StatusOr<v1::SwitchoverResponse> Failover::Switchover(const v1::SwitchoverRequest& request) {
  TOWLINE_ASSIGN_OR_RETURN(const int64_t pause_micros, TimeoutMicros(request.timeout_ms(), kSwitchoverDefaultMs));
  FailoverRunning running(&running_);
  if (!running.begun()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "promotion_running",
                     "a promotion or hand-over runs already", "wait for it");
  }
  if (deps_.host.is_primary()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "already_primary", "this node is the primary",
                     "name another node");
  }
  Takeover takeover;
  takeover.timeout_micros = kPollDefaultMs * 1000;
  takeover.reason = "switchover";
  Stopwatch watch(clock());
  takeover.polled = Poll(takeover.timeout_micros);
  takeover.verdict = JudgePromotion(takeover.polled);
  const PromotionVerdict& verdict = takeover.verdict;
  if (!verdict.alive) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "no_primary", "no member says that it takes writes now",
                     absl::StrCat("promote without a primary: towctl promote ", takeover.polled.self.node_id()));
  }
  PromotionVerdict without_primary = verdict;
  without_primary.alive.reset();
  TOWLINE_RETURN_IF_ERROR(CheckPromotion(takeover.polled, without_primary, /*force=*/false));
  takeover.report.mutable_times()->set_poll_us(watch.Lap());

  const auto old_primary = std::find_if(takeover.polled.peers.begin(), takeover.polled.peers.end(),
                                        [&verdict](const PeerAnswer& peer) { return peer.node_id == *verdict.alive; });
  v1::HandOverRequest hand_over;
  *hand_over.mutable_fence() = MakeFence(verdict.term, old_primary->node_id);
  hand_over.set_timeout_ms(static_cast<uint32_t>(pause_micros / 1000));
  const absl::StatusOr<v1::HandOverResponse> handed =
      deps_.peers.HandOver(old_primary->address, hand_over, pause_micros + kHandOverGraceMicros);
  if (!handed.ok()) return HandOverFailed(handed.status(), *verdict.alive, verdict.term);
  watch.Lap();
  takeover.handed_over = handed->standing();
  Stopwatch pause(clock());
  TOWLINE_RETURN_IF_ERROR(Take(&takeover));
  v1::SwitchoverResponse response;
  *response.mutable_report() = takeover.report;
  response.set_old_primary(old_primary->node_id);
  response.set_write_pause_us(handed->pause_us() + pause.Lap());
  return response;
}

// From the poll to the opening of writes. After a failure the node is a replica again, but its promises stand.
absl::Status Failover::Take(Takeover* takeover) {
  deps_.host.StopPulling();
  const auto pull_again = absl::MakeCleanup([this] { deps_.host.ResumePulling(); });
  Stopwatch watch(clock());
  v1::PromotionTimes* const times = takeover->report.mutable_times();
  const absl::Status promised = Promise(takeover);
  if (!promised.ok()) return takeover->handed_over ? AfterPromise(promised, takeover->verdict.term) : promised;
  absl::Status done = FencePeers(takeover);
  times->set_fence_us(watch.Lap());
  if (done.ok()) done = CatchUp(takeover);
  if (done.ok()) done = ApplyAll();
  times->set_catch_up_us(watch.Lap());
  if (done.ok()) done = Commit(takeover);
  times->set_open_us(watch.Lap());
  if (!done.ok()) {
    logger().Log(LogLevel::kError, "promotion_failed",
                 {{"term", takeover->term}, {"reason", GetErrorInfo(done).reason}, {"message", done.message()}});
    return AfterPromise(done, takeover->term);
  }
  return absl::OkStatus();
}

// Promises the term to this node itself. Of a hand-over it is the term that the old primary has granted.
absl::Status Failover::Promise(Takeover* takeover) {
  MutexLock lock(&change_mutex_);
  const Control now = control().Get();
  const Term seen = std::max(now.promised_term, now.history.empty() ? 0 : now.history.back().term);
  const bool granted_since = now.promised_term != takeover->polled.self.promised_term() && !takeover->force;
  if (granted_since || (takeover->handed_over && seen >= takeover->verdict.term)) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "promise_lost",
                     absl::StrCat("term ", seen, " was promised to ", now.promised_candidate, " meanwhile"),
                     "promote any member, the old primary included");
  }
  takeover->term = std::max<Term>(takeover->verdict.term, seen + 1);
  MutexLock gate(&deps_.replica.fence_gate());
  const absl::Status saved = control().Update(/*both=*/true, [&](Control& next) {
    next.promised_term = takeover->term;
    next.promised_candidate = next.node_id;
  });
  if (!saved.ok()) deps_.replica.environment().on_fatal(saved);
  return saved;
}

// Only those that answered the poll are waited for; the others are told as soon as they are back.
absl::Status Failover::FencePeers(Takeover* takeover) {
  PromotionInput& granted = takeover->granted;
  granted = takeover->polled;
  granted.self = deps_.host.Describe();
  std::vector<PeerAnswer*> asked;
  std::vector<std::string> endpoints;
  std::vector<v1::FenceRequest> requests;
  for (PeerAnswer& peer : granted.peers) {
    if (takeover->handed_over && takeover->handed_over->node_id() == peer.node_id) {
      peer.standing = *takeover->handed_over;
    } else if (peer.standing.ok()) {
      asked.push_back(&peer);
      endpoints.push_back(peer.address);
      requests.push_back(MakeFence(takeover->term, peer.node_id));
    }
  }
  auto answers = deps_.peers.Fence(endpoints, requests, takeover->timeout_micros);
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!answers[i].ok()) {
      asked[i]->standing = answers[i].status();
    } else if (!answers[i]->granted()) {
      asked[i]->standing =
          absl::FailedPreconditionError(absl::StrCat(answers[i]->reason(), ": ", answers[i]->message()));
    } else {
      asked[i]->standing = std::move(*answers[i]->mutable_standing());
    }
  }
  PromotionVerdict verdict = JudgePromotion(granted);
  verdict.alive.reset();
  FillReport(granted, verdict, &takeover->report);
  return CheckPromotion(granted, verdict, takeover->force);
}

// What a fenced member holds beyond this node is taken from it first; the list of members may then be a newer one.
absl::Status Failover::CatchUp(Takeover* takeover) {
  const PromotionVerdict verdict = JudgePromotion(takeover->granted);
  if (!verdict.ahead || verdict.diverged) return absl::OkStatus();
  const auto ahead = std::find_if(takeover->granted.peers.begin(), takeover->granted.peers.end(),
                                  [&](const PeerAnswer& peer) { return peer.node_id == *verdict.ahead; });
  const Lsn before = takeover->granted.self.lsn();
  const std::unique_ptr<Upstream> upstream = deps_.make_upstream(ahead->address);
  const absl::Status pulled =
      PullLostRecords(deps_.replica, *upstream, deps_.pull_options(), [this] { return stopping_.load(); });
  if (!pulled.ok()) {
    return MakeError(absl::StatusCode::kUnavailable, "catch_up_failed",
                     absl::StrCat(ahead->node_id, " holds LSN ", ahead->standing->lsn(), ", this node LSN ", before,
                                  ", and they could not be pulled: ", GetErrorInfo(pulled).message),
                     absl::StrCat("promote ", ahead->node_id));
  }
  takeover->granted.self = deps_.host.Describe();
  takeover->report.set_caught_up_from(ahead->node_id);
  takeover->report.set_caught_up_records(takeover->granted.self.lsn() - before);
  PromotionVerdict now = JudgePromotion(takeover->granted);
  now.alive.reset();
  FillReport(takeover->granted, now, &takeover->report);
  return CheckPromotion(takeover->granted, now, takeover->force);
}

absl::Status Failover::ApplyAll() {
  const std::shared_ptr<Generation> live = deps_.replica.LiveGeneration();
  if (live == nullptr) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "not_exact", "this node has no data",
                     "promote another node");
  }
  const Lsn end = live->spool().end().lsn;
  const int64_t deadline = clock().MonotonicMicros() + kApplyMicros;
  while (!live->applier().WaitApplied(end, kApplySliceMicros)) {
    if (clock().MonotonicMicros() < deadline && !stopping_.load()) continue;
    return MakeError(absl::StatusCode::kUnavailable, "catch_up_failed",
                     absl::StrCat("the state stands at LSN ", live->applier().applied_lsn(), ", the log ends at ", end),
                     "promote another node");
  }
  return absl::OkStatus();
}

// The log first: TERM_START makes the term, control follows, then writes open.
absl::Status Failover::Commit(Takeover* takeover) {
  MutexLock lock(&change_mutex_);
  const std::shared_ptr<Generation> live = deps_.replica.LiveGeneration();
  const Lsn end = live->spool().end().lsn;
  Control next = control().Get();
  if (next.promised_term != takeover->term || next.promised_candidate != next.node_id) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "promise_lost",
        absl::StrCat("term ", next.promised_term, " was promised to ", next.promised_candidate, " meanwhile"));
  }
  if (takeover->handed_over && takeover->handed_over->lsn() != end) {
    return MakeError(
        absl::StatusCode::kUnavailable, "catch_up_failed",
        absl::StrCat("the old primary's log ends at LSN ", takeover->handed_over->lsn(), ", this one at LSN ", end));
  }
  next.role = NodeRole::kPrimary;
  next.history = CutAt(next.history, end);
  next.history.push_back({takeover->term, end + 1, NewId(deps_.replica.environment().rng)});
  next.recovery = RecoveryState::kNone;
  next.recovery_reason.clear();
  TOWLINE_RETURN_IF_ERROR(deps_.host.TakeOverSlots(takeover->term));
  const absl::Status opened = deps_.lifecycle.OpenTerm(next, [&] {
    return control().Update(/*both=*/true, [&next](Control& saved) {
      saved.role = next.role;
      saved.history = next.history;
      saved.term_primary = saved.node_id;
      saved.recovery = next.recovery;
      saved.recovery_reason.clear();
    });
  });
  if (!opened.ok()) return opened;

  v1::PromotionReport& report = takeover->report;
  report.set_term(takeover->term);
  report.set_term_id(next.history.back().term_id);
  report.set_start_lsn(end + 1);
  v1::RoleChange change;
  change.set_role("primary");
  change.set_term(takeover->term);
  change.set_reason(takeover->reason);
  change.set_message(absl::StrCat(report.granted_size(), " members granted, ", report.absent_size(), " were absent",
                                  report.forced() ? "; forced without a quorum" : ""));
  deps_.host.OnRoleChanged(change);
  std::vector<std::string> absent;
  for (const PeerAnswer& peer : takeover->granted.peers) {
    if (!peer.standing.ok()) absent.push_back(peer.node_id);
  }
  RepeatFence(absent);
  return absl::OkStatus();
}

}  // namespace towline
