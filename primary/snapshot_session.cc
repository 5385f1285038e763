#include "primary/snapshot_session.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "primary/pull_protocol.h"

namespace towline {
namespace {

absl::Status PlanChanged(const Plan& plan) {
  ErrorInfo info{"plan_changed",
                 absl::StrCat("the decision is ", DecisionName(plan.decision), " (", plan.reason, "): ", plan.message),
                 "ask with Pull again", plan.numbers};
  info.metadata["decision"] = std::string(DecisionName(plan.decision));
  info.metadata["plan_reason"] = plan.reason;
  return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
}

// The slot holds the log behind the applied position for the session.
absl::StatusOr<slots::Session> HoldForSnapshot(SourceCore& core, const ResumeRequest& request,
                                               const Resumption& resumption) TOWLINE_REQUIRES(core.resume_mutex) {
  const Lsn applied = resumption.live->state().applied().lsn;
  TOWLINE_ASSIGN_OR_RETURN(slots::Session session, core.TakeSlot(request, resumption, applied));
  const absl::StatusOr<slots::Slot> slot =
      core.slots.NewGeneration(request.slot, resumption.node.data_generation, applied, slots::SlotState::kBootstrapping,
                               resumption.plan.reason, /*keep_session=*/true);
  if (!slot.ok()) {
    core.slots.EndSession(session.id);
    return slot.status();
  }
  session.generation = slot->generation;
  return session;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SnapshotSession>> SnapshotSessionImpl::Open(SourceCore& core,
                                                                           const ResumeRequest& request) {
  if (request.temporary) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_start",
                     "a temporary slot is gone before the log behind the snapshot is asked for",
                     "load a snapshot with a slot that is not temporary");
  }
  if (!core.AcquireSnapshot()) {
    return MakeError(absl::StatusCode::kResourceExhausted, "snapshot_limit",
                     absl::StrCat(core.options.max_snapshot_sessions, " snapshots are being sent already"),
                     "ask again later");
  }
  MutexLock lock(&core.resume_mutex);
  Resumption resumption = core.Resume(request);
  if (resumption.plan.decision != Decision::kFull) {
    core.ReleaseSnapshot();
    return PlanChanged(resumption.plan);
  }
  absl::StatusOr<slots::Session> session = HoldForSnapshot(core, request, resumption);
  if (!session.ok()) {
    core.ReleaseSnapshot();
    return session.status();
  }
  return std::unique_ptr<SnapshotSession>(
      new SnapshotSessionImpl(core, std::move(resumption), *std::move(session), core.clock.MonotonicMicros()));
}

SnapshotSessionImpl::SnapshotSessionImpl(SourceCore& core, Resumption resumption, slots::Session session,
                                         int64_t started_micros)
    : core_(core), resumption_(std::move(resumption)), session_(std::move(session)), started_micros_(started_micros) {
  key_ = core_.Register(this);
}

SnapshotSessionImpl::~SnapshotSessionImpl() { Close(); }

NextResult SnapshotSessionImpl::Next(v1::FetchSnapshotResponse* out) {
  out->Clear();
  {
    MutexLock lock(&mutex_);
    if (ended_) return NextResult::kEnd;
  }
  if (phase_ == Phase::kOver) return NextResult::kEnd;
  const absl::Status taken = phase_ == Phase::kHeader ? TakeHeader(out) : TakeChunk(out);
  if (taken.ok()) return NextResult::kMessage;
  End(taken);
  return NextResult::kEnd;
}

// The snapshot is taken after the slot holds the log from an earlier position, so nothing behind it can be missing.
absl::Status SnapshotSessionImpl::TakeHeader(v1::FetchSnapshotResponse* out) {
  StateStore& state = resumption_.live->state();
  TOWLINE_ASSIGN_OR_RETURN(std::shared_ptr<const StateSnapshot> snapshot, state.Snapshot());
  const Position position = snapshot->position();
  TOWLINE_RETURN_IF_ERROR(core_.slots.RaiseConfirmed(session_.slot, session_.generation, position.lsn));
  const StoreStats stats = state.store().Stats();
  const NodeView node = core_.host.View();
  SnapshotMeta meta;
  meta.cluster_id = node.cluster_id;
  meta.node_id = node.node_id;
  meta.position = position;
  meta.history = CutAt(node.history, position.lsn);
  meta.created_unix_s = static_cast<uint64_t>(core_.clock.WallMicros()) / 1'000'000;
  meta.estimated_keys = stats.estimated_keys;

  v1::SnapshotHeader* header = out->mutable_header();
  EncodePosition(meta.cluster_id, position, header->mutable_position());
  EncodeHistory(meta.history, header->mutable_history());
  header->set_slot_generation(session_.generation);
  header->set_estimated_keys(stats.estimated_keys);
  header->set_estimated_bytes(stats.disk_bytes);
  header->set_reason(resumption_.plan.reason);
  core_.logger.Log(LogLevel::kInfo, "snapshot_started",
                   {{"node", session_.slot},
                    {"reason", resumption_.plan.reason},
                    {"lsn", position.lsn},
                    {"estimated_keys", stats.estimated_keys},
                    {"estimated_bytes", stats.disk_bytes}});
  snapshot_lsn_ = position.lsn;
  encoder_.emplace(std::move(snapshot), std::move(meta));
  phase_ = Phase::kChunks;
  return absl::OkStatus();
}

absl::Status SnapshotSessionImpl::TakeChunk(v1::FetchSnapshotResponse* out) {
  TOWLINE_ASSIGN_OR_RETURN(std::optional<EncodedChunk> encoded, encoder_->Next());
  if (!encoded.has_value()) {
    TakeEnd(out);
    return absl::OkStatus();
  }
  core_.CountSnapshotBytes(encoded->data.size());
  v1::SnapshotChunk* chunk = out->mutable_chunk();
  chunk->set_sequence(encoded->sequence);
  chunk->set_first_key(std::move(encoded->first_key));
  chunk->set_last_key(std::move(encoded->last_key));
  chunk->set_keys(encoded->keys);
  chunk->set_crc32c(encoded->crc32c);
  chunk->set_data(std::move(encoded->data));
  return absl::OkStatus();
}

void SnapshotSessionImpl::TakeEnd(v1::FetchSnapshotResponse* out) {
  v1::SnapshotEnd* end = out->mutable_end();
  end->set_keys(encoder_->keys());
  end->set_bytes(encoder_->bytes());
  end->set_chunks(encoder_->chunks());
  end->set_digest(encoder_->digest().sum.Hex());
  phase_ = Phase::kOver;
  core_.logger.Log(LogLevel::kInfo, "snapshot_sent",
                   {{"node", session_.slot},
                    {"lsn", snapshot_lsn_},
                    {"keys", encoder_->keys()},
                    {"bytes", encoder_->bytes()},
                    {"chunks", encoder_->chunks()},
                    {"seconds", (core_.clock.MonotonicMicros() - started_micros_) / 1'000'000}});
  encoder_.reset();       // lets the store forget the snapshot
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
  core_.slots.EndSession(session_.id);
  if (status.ok()) return;
  core_.logger.Log(LogLevel::kWarning, "snapshot_ended",
                   {{"node", session_.slot}, {"reason", GetErrorInfo(status).reason}, {"error", status.message()}});
}

void SnapshotSessionImpl::OnRetention() {
  if (core_.slots.HasSession(session_.id)) return;
  End(MakeError(absl::StatusCode::kAborted, "slot_dropped", absl::StrCat("slot ", session_.slot, " is gone")));
}

bool SnapshotSessionImpl::Describe(PeerStatus* status) const {
  MutexLock lock(&mutex_);
  if (ended_) return false;
  status->slot = session_.slot;
  status->state = "bootstrapping";
  status->connected = true;
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
  core_.slots.EndSession(session_.id);
  core_.ReleaseSnapshot();
  encoder_.reset();
  resumption_.live.reset();
}

}  // namespace towline
