#include "primary/pull_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "primary/pull_protocol.h"
#include "primary/upstream_path.h"

namespace towline {
PullSessionImpl::PullSessionImpl(SourceCore& core, std::function<void()> wake)
    : core_(core), wake_(std::move(wake)), last_request_micros_(core.clock.MonotonicMicros()) {
  key_ = core_.Register(this);
}

PullSessionImpl::~PullSessionImpl() { Close(); }

// --- Requests ---

absl::Status PullSessionImpl::OnRequest(const v1::PullRequest& request) {
  {
    MutexLock lock(&mutex_);
    if (ended_) return absl::OkStatus();  // Next tells why
    last_request_micros_ = core_.clock.MonotonicMicros();
  }
  switch (request.kind_case()) {
    case v1::PullRequest::kStart:
      return Refused(OnStart(request.start()));
    case v1::PullRequest::kAck:
      return Refused(OnAck(request.ack()));
    case v1::PullRequest::kCredit:
      return Refused(OnCredit(request.credit()));
    case v1::PullRequest::KIND_NOT_SET:
      break;
  }
  return Refused(MakeError(absl::StatusCode::kInvalidArgument, "invalid_request", "the request holds nothing"));
}

// An error of a request ends the session.
absl::Status PullSessionImpl::Refused(const absl::Status& status) {
  if (status.ok()) return status;
  core_.CountRefusedRequest(GetErrorInfo(status).reason);
  End(status);
  return status;
}

absl::Status PullSessionImpl::OnAck(const v1::PullAck& ack) {
  TOWLINE_RETURN_IF_ERROR(CheckAck(ack));
  TOWLINE_RETURN_IF_ERROR(TakeAck(ack));
  TellAck(static_cast<Term>(ack.term()));
  return absl::OkStatus();
}

// What an exact replica holds counts for commit levels; others may never become the primary with it.
void PullSessionImpl::TellAck(Term term) {
  if (request_->temporary) return;
  ReplicaAck told;
  {
    MutexLock lock(&mutex_);
    if (ended_ || kind_ != slots::SlotKind::kReplica || flushed_lsn_ < exact_from_lsn_) return;
    told = {session_.slot, request_->incarnation, session_.id, term, flushed_lsn_, applied_lsn_};
    told_acks_ = true;
  }
  core_.host.OnReplicaAck(told);
}

absl::Status PullSessionImpl::TakeAck(const v1::PullAck& ack) {
  MutexLock lock(&mutex_);
  TOWLINE_RETURN_IF_ERROR(core_.slots.Advance(
      {ack.session_id(), ack.slot_generation(), ack.received_lsn(), ack.flushed_lsn(), ack.applied_lsn()}, sent_lsn_));
  if (ack.received_lsn() > received_lsn_ || ack.flushed_lsn() > flushed_lsn_ || ack.applied_lsn() > applied_lsn_) {
    last_progress_micros_ = last_request_micros_;
    stalled_ = false;
  }
  received_lsn_ = std::max(received_lsn_, ack.received_lsn());
  flushed_lsn_ = std::max(flushed_lsn_, ack.flushed_lsn());
  applied_lsn_ = std::max(applied_lsn_, ack.applied_lsn());
  if (applied_lsn_ >= target_lsn_) caught_up_ = true;
  if (std::exchange(waits_for_ack_, false)) WakeLocked();
  if (flushed_lsn_ < exact_from_lsn_) return absl::OkStatus();  // it is not through with its snapshot
  bootstrapping_ = false;
  if (counted_) return absl::OkStatus();
  counted_ = true;
  core_.CountDecision(session_, kind_, counts_as_, counts_reason_);
  if (counts_as_ != Decision::kPartial) {
    revive_due_ = true;  // by Next, which may wait for the disk
    WakeLocked();
  }
  return absl::OkStatus();
}

absl::Status PullSessionImpl::CheckAck(const v1::PullAck& ack) {
  if (phase_ != Phase::kStreaming) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "stale_session", "there is no session to acknowledge");
  }
  {
    MutexLock lock(&mutex_);
    if (ack.session_id() != session_.id) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "stale_session",
                       "the ack names the session of another stream");
    }
  }
  if (ack.term() == term_) return absl::OkStatus();
  if (ack.term() < term_) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "stale_term",
                     absl::StrCat("the ack is of term ", ack.term(), ", this session of term ", term_));
  }
  // A replica's own stream can bring a higher term during the session; only a primary must know of every term.
  const NodeView node = core_.host.View();
  term_ = std::max(term_, node.term);
  if (!node.is_primary || ack.term() <= term_) return absl::OkStatus();
  const std::string message =
      absl::StrCat(request_->slot, " has seen term ", ack.term(), ", this primary is in term ", node.term);
  const bool member = std::any_of(node.members.members.begin(), node.members.members.end(), [this](const auto& each) {
    return each.node_id == request_->slot && each.incarnation == request_->incarnation;
  });
  if (member) core_.host.OnStaleSelf(node.term, "stale_primary", message);
  return MakeError(absl::StatusCode::kFailedPrecondition, "stale_primary", message,
                   "find the primary of the higher term");
}

absl::Status PullSessionImpl::OnCredit(const v1::PullCredit& credit) {
  if (phase_ == Phase::kNoStart) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_start", "the first request is no start");
  }
  if (credit.granted_bytes() <= granted_bytes_) return absl::OkStatus();
  granted_bytes_ = credit.granted_bytes();
  MutexLock lock(&mutex_);
  WakeLocked();
  return absl::OkStatus();
}

// --- Messages ---

NextResult PullSessionImpl::Next(v1::PullResponse* out) {
  out->Clear();
  if (phase_ == Phase::kOver) return NextResult::kEnd;
  if (ended()) return EndNow(out);
  if (phase_ == Phase::kNoStart) return NextResult::kWait;
  if (phase_ == Phase::kStart) {
    const absl::Status started = Start(out->mutable_started());
    return started.ok() ? NextResult::kMessage : EndNow(started, out);
  }
  if (revive_due_) {
    revive_due_ = false;
    const absl::Status revived = core_.Revive(request_->slot);
    if (!revived.ok()) return EndNow(revived, out);
  }
  if (TakePath(out)) return NextResult::kMessage;
  // A heartbeat is due a few times a second at most, so it cannot starve records.
  if (TakeHeartbeat(out) || TakePrompt(out)) return NextResult::kMessage;
  const absl::StatusOr<bool> taken = TakeRecords(out);
  if (!taken.ok()) return EndNow(taken.status(), out);
  return *taken ? NextResult::kMessage : NextResult::kWait;
}

// Tells where our records come from now. An owner that is on that way is told, then ended, so that it can tell others.
bool PullSessionImpl::TakePath(v1::PullResponse* out) {
  const uint64_t version = core_.path_version();
  if (version == path_told_ || !ExtendsPath(*request_)) return false;
  path_told_ = version;
  const NodeView node = core_.host.View();
  EncodePath(node, out->mutable_upstream_path()->mutable_node_ids());
  const std::optional<PathProblem> problem = FindPathProblem(node, *request_);
  if (problem.has_value()) {
    End(MakeError(absl::StatusCode::kFailedPrecondition, problem->reason, problem->message, problem->next_action));
  }
  return true;
}

bool PullSessionImpl::TakeHeartbeat(v1::PullResponse* out) {
  const HeartbeatInfo newest = core_.heartbeat();
  if (newest.sequence == heartbeat_sent_ || newest.sequence == 0) return false;
  heartbeat_sent_ = newest.sequence;
  waited_long_ = true;
  FillHeartbeat(newest, out->mutable_heartbeat());
  if (request_->kind == slots::SlotKind::kReplica && !request_->temporary) {
    if (const auto news = core_.SlotNews(&slots_told_)) {
      EncodeSlotCopies(*news, out->mutable_heartbeat()->mutable_slots());
    }
  }
  return true;
}

// The last heartbeat once more asks the replica for acks without delay until the next one.
bool PullSessionImpl::TakePrompt(v1::PullResponse* out) {
  if (request_->kind != slots::SlotKind::kReplica) return false;
  const std::optional<CommitStage> awaited = core_.host.WritersWait();
  if (!awaited || (prompted_ == heartbeat_sent_ && prompted_stage_ >= *awaited)) return false;
  const HeartbeatInfo newest = core_.heartbeat();
  if (newest.sequence != heartbeat_sent_) return false;  // that one goes first
  prompted_ = heartbeat_sent_;
  prompted_stage_ = *awaited;
  FillHeartbeat(newest, out->mutable_heartbeat());
  out->mutable_heartbeat()->set_applied_awaited(*awaited == CommitStage::kApplied);
  return true;
}

void PullSessionImpl::FillHeartbeat(const HeartbeatInfo& from, v1::Heartbeat* out) {
  out->set_sequence(from.sequence);
  out->set_durable_lsn(from.durable_lsn);
  out->set_committed_lsn(from.committed_lsn);
  MutexLock lock(&mutex_);
  out->set_behind_bytes(live_->spool().BytesBehind(sent_lsn_));
}

// False: nothing to send, or no credit for it.
absl::StatusOr<bool> PullSessionImpl::TakeRecords(v1::PullResponse* out) {
  const uint64_t sent_before = outgoing_->sent_bytes();
  const uint64_t credit = granted_bytes_ > sent_before ? granted_bytes_ - sent_before : 0;
  if (credit == 0 && !outgoing_->in_fragment()) return false;
  if (outgoing_->empty()) {
    if (WaitsForAck() || GivesWay()) return false;
    // Set before the look at the end: a record that becomes durable behind it wakes us.
    at_tail_ = true;
    if (live_->spool().end().lsn < cursor_->next_lsn()) return false;
    at_tail_ = false;
    const uint64_t piece = gives_way_ ? kPacedPieceBytes : core_.options.batch_bytes_max;
    const size_t most = static_cast<size_t>(std::min(piece, credit));
    absl::StatusOr<wal::ShippedBatch> batch = cursor_->Next(most);
    if (absl::IsDataLoss(batch.status())) core_.MarkDamaged(*live_, cursor_->next_lsn());
    if (!batch.ok()) return batch.status();
    if (batch->empty()) return false;
    outgoing_->Load(*std::move(batch));
  }
  TOWLINE_RETURN_IF_ERROR(outgoing_->Fill(credit, out));
  waited_long_ = false;
  if (gives_way_) pace_.Sent(outgoing_->sent_bytes() - sent_before);
  core_.CountRecordBytes(outgoing_->sent_bytes() - sent_before);
  MutexLock lock(&mutex_);
  const Lsn sent_lsn = std::max(sent_lsn_, outgoing_->sent_lsn());
  if (sent_lsn > sent_lsn_) record_bytes_ = (outgoing_->sent_bytes() - sent_before) / (sent_lsn - sent_lsn_);
  sent_lsn_ = sent_lsn;
  return true;
}

// Small messages go one at a time, as segments do with Nagle's algorithm (RFC 896): a replica that is busy with a sync
// gets what gathers meanwhile in one piece, which costs it one more sync, not one for each of our groups. Not while
// writers wait: the replica puts together by itself what arrives during a sync. And not for longer than a heartbeat:
// where acks do not come through, records still do.
bool PullSessionImpl::WaitsForAck() {
  if (waited_long_ || core_.host.WritersWait()) return false;
  MutexLock lock(&mutex_);
  const bool outstanding =
      kind_ == slots::SlotKind::kReplica && outgoing_->sent_bytes() != 0 && KeptLocked() < sent_lsn_;
  waits_for_ack_ = outstanding && (live_->spool().end().lsn - sent_lsn_) * record_bytes_ < core_.options.follow_bytes;
  return waits_for_ack_;
}

// The log behind a snapshot is sent at the limit's pace while others write, until the owner is at its end.
bool PullSessionImpl::GivesWay() {
  if (!gives_way_) return false;
  const double limit = core_.host.WritersWait() ? 0 : core_.CatchUpLimit();
  MutexLock lock(&mutex_);
  gives_way_ = live_->spool().BytesBehind(sent_lsn_) > core_.options.batch_bytes_max;
  if (!gives_way_ || limit == 0 || pace_.MaySend(limit, core_.clock.MonotonicMicros())) return false;
  waits_for_tick_ = true;
  core_.Paced();
  return true;
}

NextResult PullSessionImpl::EndNow(const absl::Status& status, v1::PullResponse* out) {
  End(status);
  return EndNow(out);
}

// The first answer must be `started`, so a session that fails before it ends with its status only.
NextResult PullSessionImpl::EndNow(v1::PullResponse* out) {
  const bool started = phase_ == Phase::kStreaming;
  phase_ = Phase::kOver;
  const absl::Status status = end_status();
  out->Clear();
  if (!started || status.ok()) return NextResult::kEnd;
  EncodeError(status, out->mutable_ended());
  return NextResult::kMessage;
}

// --- End ---

bool PullSessionImpl::ended() const {
  MutexLock lock(&mutex_);
  return ended_;
}

absl::Status PullSessionImpl::end_status() const {
  MutexLock lock(&mutex_);
  return end_status_;
}

void PullSessionImpl::End(const absl::Status& status) {
  MutexLock lock(&mutex_);
  EndLocked(status);
  WakeLocked();
}

// Gives up slot and pin at once: the transport may take its time to close.
void PullSessionImpl::EndLocked(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  end_status_ = status;
  pin_.reset();
  if (session_.id == 0) return;
  core_.slots.EndSession(session_.id);
  if (told_acks_) core_.host.OnReplicaGone(session_.slot, session_.id);
  core_.logger.Log(status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "pull_session_ended",
                   {{"node", session_.slot},
                    {"reason", status.ok() ? "closed" : GetErrorInfo(status).reason},
                    {"sent_lsn", sent_lsn_},
                    {"flushed_lsn", flushed_lsn_}});
}

void PullSessionImpl::Close() {
  {
    MutexLock lock(&mutex_);
    if (closed_) return;
    closed_ = true;
  }
  if (listener_ != 0) live_->spool().RemoveListener(listener_);
  core_.Unregister(key_);
  cursor_.reset();
  MutexLock lock(&mutex_);
  EndLocked(absl::OkStatus());
  spool_ = nullptr;
  live_.reset();
}

// --- What the source asks ---

uint64_t PullSessionImpl::slot_session() const {
  MutexLock lock(&mutex_);
  return session_.id;
}

void PullSessionImpl::OnTick(const TickView& view) {
  MutexLock lock(&mutex_);
  if (ended_) return;
  const int64_t silent = view.now_micros - last_request_micros_;
  if (silent > core_.options.session_timeout_micros) {
    EndLocked(MakeError(absl::StatusCode::kDeadlineExceeded, "session_timeout",
                        absl::StrCat("no request for ", silent / 1000, " ms"),
                        "connect again, and acknowledge heartbeats"));
    WakeLocked();
    return;
  }
  if (session_.id != 0) DetectStall(view);
  if (std::exchange(waits_for_tick_, false)) WakeLocked();
}

void PullSessionImpl::DetectStall(const TickView& view) {
  if (AppliedLocked() >= view.durable_lsn) {
    last_progress_micros_ = view.now_micros;
    stalled_ = false;
    return;
  }
  const int64_t still = view.now_micros - last_progress_micros_;
  if (stalled_ || still < core_.options.stall_timeout_micros) return;
  stalled_ = true;
  core_.CountStall();
  core_.logger.Log(LogLevel::kWarning, "peer_stalled",
                   {{"node", session_.slot},
                    {"seconds", still / 1'000'000},
                    {"durable_lsn", view.durable_lsn},
                    {"sent_lsn", sent_lsn_},
                    {"received_lsn", received_lsn_},
                    {"flushed_lsn", flushed_lsn_},
                    {"applied_lsn", applied_lsn_}});
}

void PullSessionImpl::OnNews() {
  MutexLock lock(&mutex_);
  if (session_.id != 0 && !ended_) WakeLocked();
}

void PullSessionImpl::OnRetention() {
  MutexLock lock(&mutex_);
  if (session_.id == 0 || ended_) return;
  if (!core_.slots.HasSession(session_.id)) {
    EndLocked(MakeError(absl::StatusCode::kAborted, "slot_dropped", absl::StrCat("slot ", session_.slot, " is gone")));
    WakeLocked();
    return;
  }
  if (pin_ != nullptr) pin_->MoveTo(sent_lsn_ + 1);
}

void PullSessionImpl::OnInvalidated(const std::string& slot) {
  MutexLock lock(&mutex_);
  if (session_.slot == slot) pin_.reset();
}

bool PullSessionImpl::HoldAgain(const std::string& slot) {
  MutexLock lock(&mutex_);
  if (ended_ || session_.id == 0 || session_.slot != slot) return false;
  if (pin_ == nullptr) pin_ = spool_->NewPin(sent_lsn_ + 1);
  return true;
}

bool PullSessionImpl::Describe(PeerStatus* status) const {
  MutexLock lock(&mutex_);
  if (ended_ || session_.id == 0) return false;
  status->slot = session_.slot;
  status->kind = kind_;
  status->state = StateLocked();
  status->sent_lsn = sent_lsn_;
  // What it started from, it holds.
  status->received_lsn = std::max(start_lsn_, received_lsn_);
  status->flushed_lsn = std::max(start_lsn_, flushed_lsn_);
  status->applied_lsn = AppliedLocked();
  status->connected = true;
  return true;
}

const char* PullSessionImpl::StateLocked() const {
  if (stalled_) return "stalled";
  if (bootstrapping_) return "bootstrapping";
  return caught_up_ ? "streaming" : "catching_up";
}

// Before the first ack only the position of the start is known. An owner that is not exact yet says what it received.
Lsn PullSessionImpl::AppliedLocked() const {
  if (received_lsn_ == 0) return start_lsn_;
  return flushed_lsn_ < exact_from_lsn_ ? received_lsn_ : applied_lsn_;
}

// What the owner has asked us not to send again.
Lsn PullSessionImpl::KeptLocked() const { return flushed_lsn_ < exact_from_lsn_ ? received_lsn_ : flushed_lsn_; }

void PullSessionImpl::WakeLocked() {
  if (!closed_) wake_();
}

}  // namespace towline
