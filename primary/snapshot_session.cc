#include "primary/snapshot_session.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "primary/pull_protocol.h"

namespace towline {

SnapshotSessionImpl::SnapshotSessionImpl(SourceCore& core, Source source, std::function<void()> wake)
    : core_(core), source_(std::move(source)), wake_(std::move(wake)), started_micros_(core.clock.MonotonicMicros()) {
  body_ = source_.snapshot->form() == SnapshotForm::kFiles ? NewFileBody(source_.snapshot, std::move(source_.held))
                                                           : NewRdbBody(source_.snapshot, source_.cursor);
  {
    MutexLock lock(&mutex_);
    send_.slot = source_.slot.slot;
    send_.snapshot_id = source_.snapshot->id;
    send_.lsn = source_.snapshot->meta.position.lsn;
    send_.keys = source_.cursor.keys;
    send_.bytes = source_.cursor.bytes;
    send_.estimated_bytes = source_.snapshot->estimated_bytes;
    send_.resumed = source_.how == "resumed" || source_.how == "rolled" || source_.cursor.sequence != 0;
  }
  core_.CountSnapshotStream(source_.how);
  key_ = core_.Register(this);
}

SnapshotSessionImpl::~SnapshotSessionImpl() { Close(); }

NextResult SnapshotSessionImpl::Next(v1::FetchSnapshotResponse* out) {
  // The memory of a piece that has been sent is used again for the next one.
  if (!out->has_file_chunk()) out->Clear();
  {
    MutexLock lock(&mutex_);
    if (ended_) return NextResult::kEnd;
    waits_ = phase_ == Phase::kChunks && !core_.snapshots.MaySend();
    if (waits_) {
      core_.Paced();
      return NextResult::kWait;
    }
  }
  if (phase_ == Phase::kOver) return NextResult::kEnd;
  if (phase_ == Phase::kHeader) {
    const absl::Status begun = TakeHeader(out);
    if (begun.ok()) return NextResult::kMessage;
    End(begun);
    return NextResult::kEnd;
  }
  absl::Status taken = CheckSnapshot();
  if (taken.ok()) taken = TakeChunk(out);
  if (taken.ok()) return NextResult::kMessage;
  End(taken);
  return NextResult::kEnd;
}

absl::Status SnapshotSessionImpl::CheckSnapshot() const {
  if (!core_.snapshots.IsExpired(*source_.snapshot)) return absl::OkStatus();
  const int64_t seconds = core_.snapshots.options().age_max_micros / 1'000'000;
  return MakeError(absl::StatusCode::kUnavailable, "snapshot_expired",
                   absl::StrCat("the snapshot of LSN ", source_.snapshot->meta.position.lsn, " is older than ", seconds,
                                " s (bootstrap.max_snapshot_age)"),
                   "ask again: the stream goes on from a newer one");
}

absl::Status SnapshotSessionImpl::TakeHeader(v1::FetchSnapshotResponse* out) {
  const SharedSnapshot& snapshot = *source_.snapshot;
  v1::SnapshotHeader* header = out->mutable_header();
  TOWLINE_RETURN_IF_ERROR(body_->Begin(header));
  EncodePosition(snapshot.meta.cluster_id, source_.position, header->mutable_position());
  EncodePosition(snapshot.meta.cluster_id, snapshot.meta.position, header->mutable_read_position());
  EncodeHistory(source_.history, header->mutable_history());
  header->set_slot_generation(source_.slot.generation);
  header->set_estimated_keys(snapshot.meta.estimated_keys);
  header->set_estimated_bytes(snapshot.estimated_bytes);
  header->set_reason(source_.reason);
  header->set_snapshot_id(snapshot.id);
  core_.logger.Log(LogLevel::kInfo, "snapshot_started",
                   {{"node", Name()},
                    {"reason", source_.reason},
                    {"how", source_.how},
                    {"lsn", source_.position.lsn},
                    {"read_lsn", snapshot.meta.position.lsn},
                    {"form", snapshot.form() == SnapshotForm::kFiles ? "files" : "rdb"},
                    {"resumed_bytes", body_->bytes()},
                    {"estimated_keys", snapshot.meta.estimated_keys},
                    {"estimated_bytes", snapshot.estimated_bytes}});
  phase_ = Phase::kChunks;
  MutexLock lock(&mutex_);
  send_.bytes = body_->bytes();
  return absl::OkStatus();
}

absl::Status SnapshotSessionImpl::TakeChunk(v1::FetchSnapshotResponse* out) {
  const uint64_t before = body_->sent_bytes();
  const size_t most = core_.snapshots.Limit() == 0 ? kFileChunkBytes : kPacedPieceBytes;
  TOWLINE_ASSIGN_OR_RETURN(const bool more, body_->Next(out, most));
  if (!more) {
    TakeEnd(out);
    return absl::OkStatus();
  }
  const uint64_t sent = body_->sent_bytes();
  core_.CountSnapshotBytes(sent - before);
  core_.snapshots.Sent(sent - before);
  MutexLock lock(&mutex_);
  send_.keys = body_->keys();
  send_.bytes = body_->bytes();
  sent_bytes_ = sent;
  return absl::OkStatus();
}

void SnapshotSessionImpl::TakeEnd(v1::FetchSnapshotResponse* out) {
  v1::SnapshotEnd* end = out->mutable_end();
  body_->FillEnd(end);
  phase_ = Phase::kOver;
  const int64_t micros = core_.clock.MonotonicMicros() - started_micros_;
  core_.logger.Log(LogLevel::kInfo, "snapshot_sent",
                   {{"node", Name()},
                    {"lsn", source_.position.lsn},
                    {"read_lsn", source_.snapshot->meta.position.lsn},
                    {"keys", end->keys()},
                    {"bytes", end->bytes()},
                    {"bytes_of_this_stream", body_->sent_bytes()},
                    {"chunks", end->chunks()},
                    {"ms", micros / 1000}});
  // One that left out the most says nothing of the speed.
  if (body_->sent_bytes() == body_->bytes()) core_.snapshots.Finished(body_->sent_bytes(), micros);
  End(absl::OkStatus());  // the owner may pull before the transport closes
}

absl::Status SnapshotSessionImpl::end_status() const {
  MutexLock lock(&mutex_);
  return end_status_;
}

void SnapshotSessionImpl::End(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (ended_) return;
  ended_ = true;
  end_status_ = status;
  if (source_.slot.id != 0) core_.slots.EndSession(source_.slot.id);
  if (waits_) wake_();
  if (status.ok()) return;
  core_.logger.Log(LogLevel::kWarning, "snapshot_ended",
                   {{"node", Name()}, {"reason", GetErrorInfo(status).reason}, {"error", status.message()}});
}

void SnapshotSessionImpl::OnTick(const TickView&) {
  MutexLock lock(&mutex_);
  if (waits_ && !ended_) wake_();
}

void SnapshotSessionImpl::OnRetention() {
  if (source_.slot.id == 0 || core_.slots.HasSession(source_.slot.id)) return;
  End(MakeError(absl::StatusCode::kAborted, "slot_dropped", absl::StrCat("slot ", source_.slot.slot, " is gone")));
}

void SnapshotSessionImpl::OnInvalidated(const std::string& slot) {
  if (source_.slot.id == 0 || slot != source_.slot.slot) return;
  End(MakeError(absl::StatusCode::kAborted, "snapshot_outrun",
                absl::StrCat("the log behind LSN ", source_.position.lsn, " grew beyond the limits of slot ", slot,
                             " before the snapshot was through"),
                "raise slots.max_retained_bytes or bootstrap.rate_limit, or write less until it is through"));
}

bool SnapshotSessionImpl::Describe(PeerStatus* status) const {
  MutexLock lock(&mutex_);
  if (ended_ || source_.slot.id == 0) return false;
  status->slot = source_.slot.slot;
  status->state = "bootstrapping";
  status->connected = true;
  return true;
}

bool SnapshotSessionImpl::DescribeSnapshot(SnapshotSend* send) const {
  MutexLock lock(&mutex_);
  if (ended_) return false;
  *send = send_;
  send->elapsed_seconds = static_cast<double>(core_.clock.MonotonicMicros() - started_micros_) / 1e6;
  if (send->elapsed_seconds > 0) {
    send->bytes_per_second = static_cast<double>(sent_bytes_) / send->elapsed_seconds;
  }
  return true;
}

// The slot keeps its state: it holds the log until the owner pulls.
void SnapshotSessionImpl::Close() {
  {
    MutexLock lock(&mutex_);
    if (closed_) return;
    closed_ = true;
    ended_ = true;
  }
  core_.Unregister(key_);
  if (source_.slot.id != 0) core_.slots.EndSession(source_.slot.id);
  core_.snapshots.Leave();
  body_.reset();  // before the snapshot and the store that it reads
  source_.snapshot.reset();
}

}  // namespace towline
