#include "replica/pull_stage.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/executor.h"
#include "common/failpoint.h"
#include "common/names.h"
#include "replica/log_history.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

constexpr int64_t kReadTimeoutMicros = 250'000;
// Acks that only tell of applied records leave at most so often, until all that is durable is applied.
constexpr int64_t kAppliedAckMicros = 10'000;
// Most messages of one step; heartbeats do not fill a group.
constexpr int kMessagesMax = 256;

// The log says who the primary of its last term is.
void TakeTerm(const History& history, const std::string& primary, Control* control) {
  control->history = history;
  control->term_primary = ValidateName("node_id", primary).ok() ? primary : "";
}

absl::Status StreamEnded(PullStream& stream) {
  const absl::Status status = stream.Finish();
  return status.ok() ? MakeError(absl::StatusCode::kUnavailable, "stream_closed", "the upstream closed the stream")
                     : status;
}

}  // namespace

PullStage::PullStage(ReplicaHost& host, const ReplicaOptions& options, PullStream& stream, PullTarget target,
                     const v1::PullStarted& started)
    : host_(host),
      options_(options),
      clock_(host.environment().clock),
      stream_(stream),
      generation_(std::move(target.generation)),
      live_(target.live),
      session_id_(started.session_id()),
      slot_generation_(started.slot_generation()),
      started_term_(static_cast<Term>(started.term())),
      intake_(generation_->spool().end(), std::move(target.history), started.cluster_id()),
      appended_history_(intake_.history()),
      credit_(options.credit_bytes),
      last_message_micros_(clock_.MonotonicMicros()),
      last_progress_micros_(last_message_micros_),
      flushed_lsn_(intake_.end().lsn) {
  progress_.flushed_lsn = intake_.end().lsn;
  progress_.applied_lsn = generation_->applier().applied_lsn();
  progress_.upstream_durable_lsn = started.durable_lsn();
  listener_ = generation_->AddAppliedListener([this](Lsn applied) {
    // Before the next ack may leave, a wake is for nothing: the read ends at that time by itself.
    if (applied < flushed_lsn_.load(std::memory_order_relaxed)) return;
    if (clock_.MonotonicMicros() >= pace_.applied_at()) stream_.Wake();
  });
}

PullStage::~PullStage() { generation_->RemoveAppliedListener(listener_); }

StageResult PullStage::Step() {
  StageResult drained = progress_.acked ? Drain() : StageResult::GoOn();
  if (!intake_.empty()) {
    if (Failpoint("replica_ack_early")) {
      progress_.flushed_lsn = intake_.end().lsn;
      (void)Answer();
    }
    StageResult appended = Append();
    if (appended.kind != StageResult::Kind::kGoOn) return appended;
  }
  if (drained.kind != StageResult::Kind::kGoOn) return drained;

  const int64_t silence = clock_.MonotonicMicros() - last_message_micros_;
  if (silence > options_.upstream_timeout_micros) {
    return StageResult::Reconnect(MakeError(absl::StatusCode::kDeadlineExceeded, "upstream_silent",
                                            absl::StrCat("no message for ", silence / 1000, " ms")));
  }
  return Answer();
}

// While writers wait, what came when everything before was answered is synced at once: the next look would cost a
// window update first. What gathers meanwhile is one group.
StageResult PullStage::Drain() {
  ReadResult read = stream_.Read(&message_, 0);
  const bool backlog = read == ReadResult::kMessage;
  if (!backlog && read != ReadResult::kClosed) read = stream_.Read(&message_, ReadTimeout());
  for (int messages = 1; read == ReadResult::kMessage; ++messages) {
    last_message_micros_ = clock_.MonotonicMicros();
    StageResult taken = Take(message_);
    if (taken.kind != StageResult::Kind::kGoOn) return taken;
    if (intake_.bytes() >= options_.group_bytes_max || messages >= kMessagesMax) return StageResult::GoOn();
    if (!backlog && !intake_.empty() && pace_.prompt() != AckPrompt::kNone) return StageResult::GoOn();
    read = stream_.Read(&message_, 0);
  }
  if (read == ReadResult::kClosed) return StageResult::Reconnect(StreamEnded(stream_));
  return StageResult::GoOn();
}

StageResult PullStage::Take(const v1::PullResponse& message) {
  if (message.has_frames()) {
    drained_bytes_ += message.frames().frames().size();
    absl::Status added = intake_.Add(message.frames());
    return added.ok() ? StageResult::GoOn() : StageResult::BadFrames(std::move(added));
  }
  if (message.has_heartbeat()) {
    const v1::Heartbeat& heartbeat = message.heartbeat();
    if (heartbeat.sequence() == heartbeats_.newest()) {  // repeated: writers wait for acks
      Prompt(heartbeat.applied_awaited() ? AckPrompt::kApplied : AckPrompt::kFlushed);
      return StageResult::GoOn();
    }
    Prompt(AckPrompt::kNone);
    heartbeats_.Received(heartbeat.sequence(), heartbeat.durable_lsn());
    progress_.heartbeat_sequence = heartbeats_.newest();
    progress_.upstream_durable_lsn = std::max<Lsn>(heartbeats_.newest_durable(), progress_.upstream_durable_lsn);
    progress_.upstream_committed_lsn = heartbeat.committed_lsn();
    if (heartbeat.has_slots()) {
      absl::StatusOr<slots::SlotCopies> copies = SlotCopiesFromProto(heartbeat.slots());
      if (!copies.ok()) return StageResult::Reconnect(copies.status());
      copies->term = SeenTerm();
      host_.OnSlotCopies(*copies);
    }
    host_.OnHeartbeat(heartbeat.sequence(), heartbeat.durable_lsn(), heartbeat.committed_lsn());
    return StageResult::GoOn();
  }
  if (message.has_ended()) {
    const v1::ErrorDetail& ended = message.ended();
    absl::Status why = MakeError(absl::StatusCode::kUnavailable, ended.reason(), ended.message(), ended.next_action());
    return IsPathReason(ended.reason()) ? StageResult::Halt(std::move(why)) : StageResult::Reconnect(std::move(why));
  }
  if (message.has_upstream_path()) {
    const absl::StatusOr<UpstreamPath> path = PathFromProto(message.upstream_path().node_ids(), options_.node_id);
    if (!path.ok()) return StageResult::Halt(path.status());
    host_.OnUpstreamPath(*path);
    absl::Status checked = CheckPath(*path, options_.node_id);
    return checked.ok() ? StageResult::GoOn() : StageResult::Halt(std::move(checked));
  }
  return StageResult::Reconnect(MakeError(absl::StatusCode::kInternal, "unexpected_message",
                                          "the upstream sent no frames, no heartbeat and no path"));
}

// Whether somebody waits for what this thread does; then it does not give way to others.
void PullStage::Prompt(AckPrompt prompt) {
  if (!pace_.Prompt(prompt)) return;
  SetThreadPriority(prompt == AckPrompt::kNone ? LoopPriority::kBatch : LoopPriority::kNormal);
}

// A node that has promised a newer term takes no more records of an older one.
StageResult PullStage::CheckFence(const Control& control) const {
  if (control.promised_term <= SeenTerm()) return StageResult::GoOn();
  return StageResult::Reconnect(
      MakeError(absl::StatusCode::kFailedPrecondition, "fenced",
                absl::StrCat("term ", control.promised_term, " is promised to ", control.promised_candidate,
                             ", the upstream is at term ", SeenTerm())));
}

StageResult PullStage::Append() {
  MutexLock gate(&host_.fence_gate());
  StageResult fence = CheckFence(host_.control().Get());
  if (fence.kind != StageResult::Kind::kGoOn) return fence;

  const IntakeGroup group = intake_.Finish();
  absl::Status appended = generation_->AppendAndApply(group.frames, appended_history_, nullptr);
  if (absl::IsResourceExhausted(appended)) return StageResult::Halt(std::move(appended));
  if (!appended.ok()) return StageResult::Fatal(std::move(appended));
  absl::Status saved = SaveControlRecords(group);
  if (!saved.ok()) return StageResult::Fatal(std::move(saved));

  appended_history_ = intake_.history();
  credit_.Consumed(std::exchange(drained_bytes_, 0));
  flushed_lsn_.store(group.frames->last_lsn(), std::memory_order_relaxed);
  progress_.flushed_lsn = group.frames->last_lsn();
  progress_.appended = true;
  return StageResult::GoOn();
}

// Terms go to both copies of control before their records are acknowledged.
absl::Status PullStage::SaveControlRecords(const IntakeGroup& group) {
  if (!group.term_primary.has_value() && !group.members.has_value()) return absl::OkStatus();
  if (Failpoint("replica_skip_term_save")) return absl::OkStatus();
  const bool new_term = group.term_primary.has_value() && live_;
  if (!new_term && !group.members.has_value()) return absl::OkStatus();
  const bool both = new_term && !Failpoint("replica_save_term_once");
  return host_.control().Update(both, [&](Control& control) {
    if (new_term) TakeTerm(intake_.history(), *group.term_primary, &control);
    if (group.members.has_value()) control.members = *group.members;
  });
}

StageResult PullStage::Answer() {
  Observe();
  v1::PullAck ack;
  ack.set_session_id(session_id_);
  ack.set_slot_generation(slot_generation_);
  ack.set_term(SeenTerm());
  ack.set_received_lsn(progress_.flushed_lsn);
  ack.set_flushed_lsn(progress_.flushed_lsn);
  ack.set_applied_lsn(progress_.applied_lsn);
  ack.set_heartbeat_sequence(heartbeats_.newest());
  ack.set_heartbeat_applied_sequence(heartbeats_.newest_applied());
  const int64_t now = clock_.MonotonicMicros();
  v1::PullRequest request;
  if (AckIsDue(ack, now)) {
    *request.mutable_ack() = ack;
    if (!live_) {
      // What a log that is not live holds is nothing that anybody may count on.
      request.mutable_ack()->clear_flushed_lsn();
      request.mutable_ack()->clear_applied_lsn();
      request.mutable_ack()->clear_heartbeat_applied_sequence();
    }
    if (!stream_.Write(request)) return StageResult::Reconnect(StreamEnded(stream_));
    last_ack_ = ack;
    last_ack_micros_ = now;
    pace_.Sent(now);
    progress_.acked = true;
  }
  if (MayGrant() && credit_.due()) {
    request.mutable_credit()->set_granted_bytes(*credit_.Grant());
    if (!stream_.Write(request)) return StageResult::Reconnect(StreamEnded(stream_));
  }
  return StageResult::GoOn();
}

bool PullStage::AckIsDue(const v1::PullAck& ack, int64_t now) const {
  if (!progress_.acked || ack.heartbeat_sequence() != last_ack_.heartbeat_sequence()) return true;
  if (ack.flushed_lsn() != last_ack_.flushed_lsn()) return now >= pace_.flushed_at();
  if (now < pace_.applied_at()) return false;
  const bool applied_moved = ack.applied_lsn() != last_ack_.applied_lsn() ||
                             ack.heartbeat_applied_sequence() != last_ack_.heartbeat_applied_sequence();
  return applied_moved && (ack.applied_lsn() == ack.flushed_lsn() || now - last_ack_micros_ >= kAppliedAckMicros);
}

// Notes how far the state is, and whether it is standing still.
void PullStage::Observe() {
  const Lsn applied = std::min(generation_->applier().applied_lsn(), progress_.flushed_lsn);
  const bool moved = applied != progress_.applied_lsn || progress_.flushed_lsn != last_ack_.flushed_lsn();
  progress_.applied_lsn = applied;
  heartbeats_.Applied(applied);
  if (heartbeats_.any() && progress_.flushed_lsn >= heartbeats_.newest_durable()) progress_.complete = true;
  if (heartbeats_.any() && applied >= heartbeats_.newest_durable()) progress_.caught_up = true;

  const int64_t now = clock_.MonotonicMicros();
  const Lsn target = std::max(progress_.upstream_durable_lsn, progress_.flushed_lsn);
  if (moved || applied >= target) last_progress_micros_ = now;
  progress_.stalled = now - last_progress_micros_ > options_.stall_timeout_micros;
}

bool PullStage::MayGrant() const { return generation_->applier().queued_bytes() <= options_.apply_queue_max_bytes; }

int64_t PullStage::ReadTimeout() const {
  const bool waits_for_applier = last_ack_.applied_lsn() < progress_.flushed_lsn || (!MayGrant() && credit_.due());
  if (!waits_for_applier) return kReadTimeoutMicros;
  const int64_t left = pace_.applied_at() - clock_.MonotonicMicros();
  return left > 0 ? left : kAppliedAckMicros;
}

Term PullStage::SeenTerm() const { return std::max(started_term_, intake_.end().term); }

}  // namespace towline
