// The start of a Pull stream: from the first request to the decision and what it does to slot, pin and counters.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "primary/pull_protocol.h"
#include "primary/pull_session.h"

namespace towline {
namespace {

// A slot whose owner lost its data directory, that speaks of another log, or that another node has served so far.
bool IsOfAnotherOwner(const slots::Slot& slot, const ResumeRequest& request, const NodeView& node) {
  const bool wiped = slot.kind == slots::SlotKind::kReplica && slot.owner_incarnation != 0 &&
                     slot.owner_incarnation != request.incarnation;
  return wiped || slot.data_generation != node.data_generation || !slot.origin.empty();
}

// An owner that replays the log behind a snapshot until its state is exact.
bool IsNotExact(const ResumeRequest& request) {
  return request.exact_from.has_value() && request.exact_from->lsn > request.lsn;
}

}  // namespace

absl::Status PullSessionImpl::OnStart(const v1::PullStart& start) {
  if (phase_ != Phase::kNoStart) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_start", "start was sent twice");
  }
  TOWLINE_ASSIGN_OR_RETURN(request_, DecodeStart(start));
  const bool as_frames = request_->kind == slots::SlotKind::kReplica;
  outgoing_.emplace(as_frames, core_.options.batch_bytes_max);
  granted_bytes_ = start.credit_bytes();
  phase_ = Phase::kStart;
  return absl::OkStatus();
}

absl::Status PullSessionImpl::Start(v1::PullStarted* started) {
  Resumption resumption;
  absl::Status decided;
  path_told_ = core_.path_version();  // before the look at the node: what becomes different behind it is told
  {
    MutexLock lock(&core_.resume_mutex);
    decided = Decide(&resumption);
    // Somebody created the slot meanwhile: the second look finds it.
    if (absl::IsAlreadyExists(decided)) decided = Decide(&resumption);
  }
  Plan& plan = resumption.plan;
  if (!decided.ok()) {
    if (GetErrorInfo(decided).reason != "slot_in_use") return decided;
    RefuseInUse(decided, &plan);
  }
  const bool partial = plan.decision == Decision::kPartial;
  if (partial) TOWLINE_RETURN_IF_ERROR(OpenLog(plan.from_lsn));
  core_.LogDecision(*request_, plan);
  EncodeStarted(plan, resumption.node, resumption.log, started);
  if (plan.decision == Decision::kRewind) {
    TOWLINE_ASSIGN_OR_RETURN(const wal::LogEnd common, resumption.live->spool().EndAt(plan.common_lsn));
    started->set_common_chain(common.chain);
  }
  if (partial) {
    MutexLock lock(&mutex_);
    started->set_session_id(session_.id);
    started->set_slot_generation(session_.generation);
  }
  TellHost(resumption);
  phase_ = partial ? Phase::kStreaming : Phase::kOver;
  return absl::OkStatus();
}

// Plans, and makes the slot what the plan says.
absl::Status PullSessionImpl::Decide(Resumption* resumption) {
  *resumption = core_.Resume(*request_);
  if (resumption->plan.decision == Decision::kPartial) return Attach(resumption);
  if (resumption->plan.decision == Decision::kRewind) return HoldForRewind(*resumption);
  if (resumption->plan.decision == Decision::kFull) return core_.GiveUpDiverged(*request_, *resumption);
  return absl::OkStatus();
}

// Slot, session and pin hold the log from the first record to send.
absl::Status PullSessionImpl::Attach(Resumption* resumption) {
  const Plan& plan = resumption->plan;
  const Lsn lsn = plan.from_lsn - 1;
  TOWLINE_ASSIGN_OR_RETURN(slots::Session session, core_.TakeSlot(*request_, *resumption, lsn));
  counts_as_ = Decision::kPartial;
  counts_reason_ = plan.reason;
  absl::Status moved = MoveSlot(*resumption, &session);
  MutexLock lock(&mutex_);
  if (ended_) moved = end_status_;
  if (!moved.ok()) {
    core_.slots.EndSession(session.id);
    return moved;
  }
  live_ = resumption->live;
  term_ = resumption->node.term;
  spool_ = &live_->spool();
  pin_ = spool_->NewPin(plan.from_lsn);
  session_ = std::move(session);
  kind_ = request_->kind;
  start_lsn_ = lsn;
  sent_lsn_ = lsn;
  target_lsn_ = resumption->log.durable_lsn;
  caught_up_ = lsn >= target_lsn_;
  bootstrapping_ = counts_as_ == Decision::kFull;
  gives_way_ = bootstrapping_;
  if (IsNotExact(*request_)) exact_from_lsn_ = request_->exact_from->lsn;
  last_progress_micros_ = core_.clock.MonotonicMicros();
  return absl::OkStatus();
}

// A position below the slot's, another owner or another log start a new generation; the requested position decides.
absl::Status PullSessionImpl::MoveSlot(const Resumption& resumption, slots::Session* session) {
  if (!resumption.slot.has_value() || request_->temporary) return absl::OkStatus();  // it was just created there
  const slots::Slot& slot = *resumption.slot;
  const Lsn lsn = resumption.plan.from_lsn - 1;
  if (lsn < slot.confirmed_lsn || IsOfAnotherOwner(slot, *request_, resumption.node)) {
    TOWLINE_ASSIGN_OR_RETURN(
        const slots::Slot moved,
        core_.slots.NewGeneration(slot.name, resumption.node.data_generation, lsn, slots::SlotState::kInactive, "",
                                  /*keep_session=*/true));
    session->generation = moved.generation;
    return absl::OkStatus();
  }
  // The stream that counted it ended before it came to revive the slot.
  const bool counted = core_.IsCounted(slot.name, slot.generation);
  if (!slot.bootstrap_reason.empty() && !counted) {
    counts_as_ = slot.state == slots::SlotState::kRewinding ? Decision::kRewind : Decision::kFull;
    counts_reason_ = slot.bootstrap_reason;
  }
  const bool invalidated = slot.state == slots::SlotState::kInvalidated;
  if (!invalidated && !counted) return absl::OkStatus();
  // Its log is gone up to somewhere below the requested position: what it claims must be there.
  if (invalidated) TOWLINE_RETURN_IF_ERROR(core_.slots.RaiseConfirmed(slot.name, slot.generation, lsn));
  return core_.Revive(slot.name);
}

absl::Status PullSessionImpl::HoldForRewind(const Resumption& resumption) {
  if (request_->temporary) return absl::OkStatus();  // it would be gone with this stream
  TOWLINE_RETURN_IF_ERROR(core_.TakeSlot(*request_, resumption, resumption.plan.common_lsn).status());
  return core_.slots
      .NewGeneration(request_->slot, resumption.node.data_generation, resumption.plan.common_lsn,
                     slots::SlotState::kRewinding, resumption.plan.reason, /*keep_session=*/false)
      .status();
}

absl::Status PullSessionImpl::OpenLog(Lsn from_lsn) {
  TOWLINE_ASSIGN_OR_RETURN(cursor_, live_->spool().NewCursor(from_lsn));
  listener_ = live_->spool().AddDurableListener([this](Lsn) {
    if (at_tail_.exchange(false)) wake_();
  });
  return absl::OkStatus();
}

void PullSessionImpl::TellHost(const Resumption& resumption) {
  const Plan& plan = resumption.plan;
  if (plan.step_down || plan.recovery_required) core_.host.OnStaleSelf(resumption.node.term, plan.reason, plan.message);
  if (plan.decision != Decision::kPartial || request_->kind != slots::SlotKind::kReplica) return;
  if (request_->temporary || IsNotExact(*request_)) return;  // it does not come to stay, or not yet
  core_.host.OnReplicaAttached({request_->slot, request_->incarnation, request_->advertised_address, true},
                               /*knows_members=*/counts_as_ == Decision::kPartial);
}

}  // namespace towline
