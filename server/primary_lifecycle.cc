#include "server/primary_lifecycle.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/names.h"
#include "server/recovery.h"

namespace towline {
namespace {

constexpr size_t kReasonTextMax = 1000;  // docs/formats/control_v2.md: recovery reason
constexpr int64_t kBeatMicros = 100'000;

std::vector<MemberInfo> Others(const NodeView& view) {
  std::vector<MemberInfo> others;
  for (const MemberInfo& member : view.members.members) {
    if (member.node_id != view.node_id) others.push_back(member);
  }
  return others;
}

// Reasons for which an operator has to decide, over a restart too.
bool NeedsRecovery(absl::string_view reason) { return reason == "replica_ahead" || reason == "term_conflict"; }

absl::Status RecoveryRequired(absl::string_view reason, absl::string_view message) {
  if (reason == "term_conflict") {
    return MakeError(absl::StatusCode::kFailedPrecondition, "recovery_required",
                     absl::StrCat("there are two primaries of one term: ", message),
                     "promote one of the two by force: towctl promote NODE --force");
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, "recovery_required",
                   absl::StrCat("this primary has lost durable records: ", message),
                   "fetch them with towctl recover --from NODE, or give them up with towctl recover --accept-loss");
}

}  // namespace

PrimaryLifecycle::PrimaryLifecycle(LifecycleDependencies deps)
    : deps_(std::move(deps)),
      membership_(deps_.host.control(), deps_.host.environment().clock, deps_.config.members_auto_join,
                  deps_.host.environment().on_fatal,
                  [this](const MemberList& list, Lsn lsn) { role()->commit().SetMembers(list, lsn); }),
      standstill_(deps_.host.environment().clock, deps_.config.fence_pause_max_micros) {}

PrimaryLifecycle::~PrimaryLifecycle() { Stop(); }

absl::Status PrimaryLifecycle::Start() {
  watch_loop_ = deps_.host.environment().executor.Start("watch", [this] { return StepWatch(); });
  const Control control = deps_.host.control().Get();
  if (control.role != NodeRole::kPrimary) return absl::OkStatus();
  SetPhase(Phase::kChecking, "starting", "");
  if (control.recovery == RecoveryState::kRecoveryRequired) {
    logger().Log(LogLevel::kError, "recovery_required",
                 {{"message", control.recovery_reason},
                  {"next_action", "towctl recover --from NODE, or towctl recover --accept-loss"}});
    SetPhase(Phase::kRecoveryRequired, "replica_ahead", control.recovery_reason);
    return absl::OkStatus();
  }
  return CheckPeersThenOpen();
}

absl::Status PrimaryLifecycle::CheckPeersThenOpen() {
  const NodeView view = deps_.view();
  std::vector<MemberInfo> others = Others(view);
  if (others.empty() || deps_.config.start_peer_wait_micros == 0) return Open();
  StartCheck(std::move(others), view);
  return absl::OkStatus();
}

// Asks `others`; StepCheck goes on when the verdict is there.
void PrimaryLifecycle::StartCheck(std::vector<MemberInfo> others, const NodeView& view) {
  const auto name = [](std::string* out, const MemberInfo& member) {
    absl::StrAppend(out, member.node_id, "@", member.address);
  };
  logger().Log(LogLevel::kInfo, "asking_members",
               {{"members", absl::StrJoin(others, " ", name)}, {"wait_micros", deps_.config.start_peer_wait_micros}});
  MutexLock change_lock(&change_mutex_);
  if (stopping_.load()) return;
  {
    MutexLock lock(&mutex_);
    // Fenced or condemned since the caller looked: it must not open again.
    if (phase_ != Phase::kChecking && phase_ != Phase::kOpen && phase_ != Phase::kPaused) return;
    phase_ = Phase::kChecking;
    reason_ = "waiting_for_members";
    message_ = absl::StrCat("asking ", absl::StrJoin(others, " ", name), " whether they hold more than this node");
    check_ = std::make_shared<PeerCheck>(view, deps_.host.LiveGeneration()->spool().end().lsn, std::move(others),
                                         deps_.config.start_peer_wait_micros, deps_.ask_peer,
                                         deps_.host.environment().clock, logger());
  }
  if (check_loop_ == nullptr) {
    check_loop_ = deps_.host.environment().executor.Start("peer-check", [this] { return StepCheck(); });
  } else {
    check_loop_->Wake();
  }
}

StepResult PrimaryLifecycle::StepCheck() {
  std::shared_ptr<PeerCheck> check;
  {
    MutexLock lock(&mutex_);
    // A replica that connected meanwhile may have shown more.
    if (phase_ != Phase::kChecking || stopping_.load()) check_.reset();
    check = check_;
  }
  if (check == nullptr) return StepResult::WaitForWake();
  PeerCheck::Verdict verdict;
  if (!check->Step(&verdict)) return StepResult::WaitFor(check->pause_micros());
  {
    MutexLock lock(&mutex_);
    if (check_ != check) return StepResult::WaitForWake();  // of a term that is over
    check_.reset();
    if (!verdict.open && !CondemnLocked(verdict.reason, verdict.message)) return StepResult::WaitForWake();
  }
  if (!verdict.open) {
    LogClosed(verdict.reason, verdict.message);
  } else if (const absl::Status opened = ReopenChecked(); !opened.ok()) {
    deps_.host.environment().on_fatal(opened);
  }
  return StepResult::WaitForWake();
}

// Nobody holds more: what was held is answered, or a node that has just started opens.
absl::Status PrimaryLifecycle::ReopenChecked() {
  PrimaryRole* held = nullptr;
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kChecking) return absl::OkStatus();
    if (holding_) {
      held = role();
      holding_ = false;
      phase_ = Phase::kOpen;
      reason_.clear();
      message_.clear();
    }
  }
  if (held == nullptr) return Open();
  held->Release();
  logger().Log(LogLevel::kInfo, "writes_open", {{"durable_lsn", deps_.host.LiveGeneration()->spool().end().lsn}});
  return absl::OkStatus();
}

absl::Status PrimaryLifecycle::Open() {
  MutexLock change_lock(&change_mutex_);  // a fence either comes first, or finds a role that it closes
  if (phase() != Phase::kChecking) return absl::OkStatus();
  TOWLINE_ASSIGN_OR_RETURN(std::unique_ptr<PrimaryRole> role,
                           PrimaryRole::Open(deps_.host.environment(), deps_.config, deps_.host.control().Get(),
                                             deps_.host.LiveGeneration(), &standstill_));
  return Publish(std::move(role));
}

absl::Status PrimaryLifecycle::Publish(std::unique_ptr<PrimaryRole> role) {
  {
    MutexLock lock(&mutex_);
    if (condemned_ || stopping_.load()) return absl::OkStatus();  // shown to be stale at the last moment
    role_view_.store(role.get(), std::memory_order_release);
    roles_.push_back(std::move(role));
    phase_ = Phase::kOpen;
    holding_ = false;
    reason_.clear();
    message_.clear();
  }
  logger().Log(LogLevel::kInfo, "writes_open", {{"durable_lsn", deps_.host.LiveGeneration()->spool().end().lsn}});
  return absl::OkStatus();
}

absl::Status PrimaryLifecycle::OpenTerm(const Control& control, const std::function<absl::Status()>& save) {
  MutexLock change_lock(&change_mutex_);
  absl::StatusOr<std::unique_ptr<PrimaryRole>> role =
      PrimaryRole::Open(deps_.host.environment(), deps_.config, control, deps_.host.LiveGeneration(), &standstill_);
  if (absl::IsResourceExhausted(role.status())) return role.status();
  absl::Status saved = role.ok() ? save() : role.status();
  if (!saved.ok()) {
    deps_.host.environment().on_fatal(saved);
    return saved;
  }
  {
    MutexLock lock(&mutex_);
    condemned_ = false;  // by what was shown to the term before
    opened_term_ = control.history.back().term;
    check_.reset();
    phase_ = Phase::kChecking;
  }
  return Publish(*std::move(role));
}

absl::Status PrimaryLifecycle::Pause(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (phase_ != Phase::kOpen) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "not_primary", "this node takes no writes now",
                     "look at its status");
  }
  phase_ = Phase::kPaused;
  paused_ = status;
  reason_ = GetErrorInfo(status).reason;
  role()->Pause(status);
  return absl::OkStatus();
}

void PrimaryLifecycle::Resume() {
  MutexLock lock(&mutex_);
  if (role() != nullptr) role()->Unpause();
  if (phase_ != Phase::kPaused) return;
  phase_ = Phase::kOpen;
  reason_.clear();
}

bool PrimaryLifecycle::drained() const { return role() == nullptr || role()->drained(); }

void PrimaryLifecycle::Close(const absl::Status& status) {
  MutexLock change_lock(&change_mutex_);
  {
    MutexLock lock(&mutex_);
    phase_ = Phase::kInactive;
    holding_ = false;
    condemned_ = false;
    reason_.clear();
    message_.clear();
    check_.reset();
  }
  if (role() != nullptr) role()->Close(status);
}

// --- Standing still ---

StepResult PrimaryLifecycle::StepWatch() {
  if (const int64_t still = standstill_.Beat(); still > 0) AskAgain(still);
  return StepResult::WaitFor(kBeatMicros);
}

// Others may have promoted somebody meanwhile: nothing is written or answered until they were asked.
void PrimaryLifecycle::AskAgain(int64_t still_micros) {
  const NodeView view = deps_.view();
  std::vector<MemberInfo> others = Others(view);
  const bool asks = !others.empty() && deps_.config.start_peer_wait_micros != 0;
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kOpen && phase_ != Phase::kPaused) return;
    holding_ = asks;
    if (asks) role()->Hold();
  }
  if (!asks) return role()->Release();
  logger().Log(LogLevel::kWarning, "stood_still", {{"milliseconds", still_micros / 1000}});
  StartCheck(std::move(others), view);
}

void PrimaryLifecycle::OnAttached(const MemberInfo& member, bool knows_members) {
  membership_.OnAttached(member, knows_members);
  MutexLock lock(&mutex_);
  if (check_ != nullptr) check_->Heard(member.node_id);
}

void PrimaryLifecycle::OnStaleSelf(Term judged, absl::string_view reason, absl::string_view message) {
  {
    MutexLock lock(&mutex_);
    if (judged < opened_term_ || !CondemnLocked(reason, message)) return;
  }
  LogClosed(reason, message);
}

// False: it is so already.
bool PrimaryLifecycle::CondemnLocked(absl::string_view reason, absl::string_view message) {
  if (phase_ == Phase::kInactive || phase_ == Phase::kRecoveryRequired || phase_ == Phase::kRecovering) return false;
  const bool ahead = NeedsRecovery(reason);
  if (phase_ == Phase::kReadOnly && !ahead) return false;
  phase_ = ahead ? Phase::kRecoveryRequired : Phase::kReadOnly;
  reason_ = std::string(reason);
  message_ = std::string(message.substr(0, kReasonTextMax));
  condemned_ = true;
  return true;
}

bool PrimaryLifecycle::condemned() const {
  MutexLock lock(&mutex_);
  return condemned_;
}

void PrimaryLifecycle::LogClosed(absl::string_view reason, absl::string_view message) const {
  logger().Log(LogLevel::kError, "writes_closed", {{"reason", reason}, {"message", message}});
}

absl::Status PrimaryLifecycle::Tick() {
  TOWLINE_RETURN_IF_ERROR(Condemn());
  if (phase() != Phase::kOpen) return absl::OkStatus();
  membership_.Submit(deps_.self(), role()->sequencer());
  role()->sink().LookForSpace();
  role()->Tick();
  return absl::OkStatus();
}

// Ends the loops of a role that must not write any more, and keeps the reason where a restart finds it.
absl::Status PrimaryLifecycle::Condemn() {
  std::string reason;
  std::string message;
  bool ahead = false;
  {
    MutexLock lock(&mutex_);
    if (!condemned_) return absl::OkStatus();
    reason = reason_;
    message = message_;
    ahead = phase_ == Phase::kRecoveryRequired;
  }
  if (!ahead) return deps_.step_down(reason, message);  // closes
  MutexLock change_lock(&change_mutex_);
  TOWLINE_RETURN_IF_ERROR(deps_.host.control().Update(/*both=*/true, [&message](Control& control) {
    control.recovery = RecoveryState::kRecoveryRequired;
    control.recovery_reason = message;
  }));
  if (role() != nullptr) role()->Close(RecoveryRequired(reason, message));
  MutexLock lock(&mutex_);
  condemned_ = false;
  return absl::OkStatus();
}

void PrimaryLifecycle::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_.store(true);
  }
  MutexLock recovery_lock(&recovery_mutex_);  // a recovery that runs sees it and ends
  std::unique_ptr<Loop> loop;
  {
    MutexLock change_lock(&change_mutex_);
    loop = std::move(check_loop_);
  }
  if (watch_loop_ != nullptr) watch_loop_->Stop();
  if (loop != nullptr) loop->Stop();
  if (role() != nullptr) role()->Stop();
}

absl::Status PrimaryLifecycle::CheckOpen() const {
  MutexLock lock(&mutex_);
  switch (phase_) {
    case Phase::kOpen:
      return absl::OkStatus();
    case Phase::kInactive:
      return MakeError(absl::StatusCode::kFailedPrecondition, "not_primary", "this node is not the primary", "");
    case Phase::kPaused:
      return paused_;
    case Phase::kChecking:
      return MakeError(absl::StatusCode::kUnavailable, reason_,
                       absl::StrCat("this primary takes no writes yet", message_.empty() ? "" : ": ", message_),
                       "retry");
    case Phase::kReadOnly:
      return MakeError(absl::StatusCode::kFailedPrecondition, reason_,
                       absl::StrCat("this primary has stopped taking writes: ", message_),
                       "write to the primary of the higher term");
    case Phase::kRecoveryRequired:
      return RecoveryRequired(reason_, message_);
    case Phase::kRecovering:
      return MakeError(absl::StatusCode::kUnavailable, "recovering", "lost records are being fetched", "retry");
  }
  return absl::OkStatus();
}

PrimaryLifecycle::Phase PrimaryLifecycle::phase() const {
  MutexLock lock(&mutex_);
  return phase_;
}

std::string PrimaryLifecycle::reason() const {
  MutexLock lock(&mutex_);
  return reason_;
}

void PrimaryLifecycle::SetPhase(Phase phase, std::string reason, std::string message) {
  MutexLock lock(&mutex_);
  phase_ = phase;
  reason_ = std::move(reason);
  message_ = std::move(message);
}

// --- Recovery ---

absl::StatusOr<std::string> PrimaryLifecycle::EndpointOf(const std::string& from) const {
  if (from.find(':') != std::string::npos) return from;
  for (const MemberInfo& member : Others(deps_.view())) {
    if (member.node_id == from && !member.address.empty()) return member.address;
  }
  return MakeError(absl::StatusCode::kNotFound, "member_not_found",
                   absl::StrCat("there is no other member \"", Printable(from), "\" with a known address"),
                   "give its HOST:PORT, or list the members with: towctl member list");
}

absl::Status PrimaryLifecycle::Fetch(const std::string& endpoint) {
  const std::unique_ptr<Upstream> upstream = deps_.make_upstream(endpoint);
  TOWLINE_RETURN_IF_ERROR(
      PullLostRecords(deps_.host, *upstream, deps_.pull_options(), [this] { return stopping_.load(); }));
  return deps_.host.control().Update(/*both=*/true, [](Control& control) {
    control.recovery = RecoveryState::kNone;
    control.recovery_reason.clear();
  });
}

absl::Status PrimaryLifecycle::Recover(const std::string& from) {
  std::string endpoint;
  if (!from.empty()) {
    TOWLINE_ASSIGN_OR_RETURN(endpoint, EndpointOf(from));
  }
  TOWLINE_RETURN_IF_ERROR(Condemn());  // the role is stopped, and the state saved, before anything is changed
  std::string message;
  {
    MutexLock lock(&mutex_);
    if (phase_ == Phase::kRecovering) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "recovery_running", "a recovery is running already",
                       "wait for it; towctl status shows how far it is");
    }
    if (phase_ != Phase::kRecoveryRequired) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "not_in_recovery",
                       "this primary is not in state recovery_required", "nothing is to be done");
    }
    message = message_;
    phase_ = Phase::kRecovering;
    reason_ = "recovering";
  }
  MutexLock recovery_lock(&recovery_mutex_);
  absl::Status done = MakeError(absl::StatusCode::kUnavailable, "recovery_interrupted", "the node is stopping",
                                "run towctl recover again when it is back");
  if (!stopping_.load()) done = from.empty() ? BeginTermAtEnd(deps_.host) : Fetch(endpoint);
  if (!done.ok()) {
    {
      MutexLock lock(&mutex_);
      if (phase_ == Phase::kRecovering) {
        phase_ = Phase::kRecoveryRequired;
        reason_ = "replica_ahead";
        message_ = message;
      }
    }
    const bool known = absl::IsUnavailable(done) || absl::IsFailedPrecondition(done);
    if (!known) deps_.host.environment().on_fatal(done);
    return done;
  }
  logger().Log(LogLevel::kWarning, from.empty() ? "loss_accepted" : "records_recovered",
               {{"from", endpoint},
                {"durable_lsn", deps_.host.LiveGeneration()->spool().end().lsn},
                {"term", deps_.host.control().Get().history.back().term}});
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kRecovering) {  // fenced meanwhile: a replica follows the primary of the higher term
      return MakeError(absl::StatusCode::kFailedPrecondition, "not_primary", "the node was fenced meanwhile", "");
    }
    phase_ = Phase::kChecking;
    reason_ = "starting";
    message_.clear();
  }
  // Somebody else may hold even more; who accepts a loss has decided about all of them.
  return from.empty() ? Open() : CheckPeersThenOpen();
}

}  // namespace towline
