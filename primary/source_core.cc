#include "primary/source_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"

namespace towline {
namespace {

// Owners whose last refusal is remembered. Names come from outside, so there must be a limit.
constexpr size_t kRefusalsMax = 4096;

constexpr uint32_t kInUseRetryMs = 1000;

// From so much growth of the log on others give way to writers. Less is not worth a slower re-bootstrap.
constexpr double kBusyBytesPerSecond = 1 << 20;
// What a replica behind a snapshot is sent, as a multiple of what is written: catching up takes as long as the snapshot
// did.
constexpr double kCatchUpMultiple = 2;
// But at least this part of the limit of snapshots.
constexpr double kCatchUpLeast = 0.25;

std::optional<uint64_t> ChainAt(wal::Spool& spool, Lsn lsn) {
  const absl::StatusOr<wal::LogEnd> end = spool.EndAt(lsn);
  if (!end.ok()) return std::nullopt;
  return end->chain;
}

LogFacts LookAtLog(wal::Spool& spool, const ResumeRequest& request, const std::optional<slots::Slot>& slot) {
  LogFacts log;
  log.durable_lsn = spool.end().lsn;
  log.first_lsn = spool.stats().first_lsn;
  log.bytes_from_first = spool.BytesBehind(log.first_lsn - 1);
  const Lsn lsn = request.from_slot && slot.has_value() ? slot->confirmed_lsn : request.lsn;
  if (request.chain.has_value() && lsn <= log.durable_lsn) log.chain_at_request = ChainAt(spool, lsn);
  if (request.exact_from.has_value() && request.exact_from->lsn <= log.durable_lsn) {
    log.chain_at_exact_from = ChainAt(spool, request.exact_from->lsn);
  }
  if (request.cursor.has_value() && request.cursor->read.lsn <= log.durable_lsn) {
    log.chain_at_cursor = ChainAt(spool, request.cursor->position.lsn);
    log.chain_at_cursor_read = ChainAt(spool, request.cursor->read.lsn);
  }
  return log;
}

}  // namespace

void RefuseInUse(const absl::Status& status, Plan* plan) {
  const ErrorInfo info = GetErrorInfo(status);
  plan->decision = Decision::kRefuse;
  plan->row = "4";
  plan->reason = info.reason;
  plan->message = info.message;
  plan->next_action = info.next_action;
  plan->from_lsn = 0;
  plan->retry_after_ms = kInUseRetryMs;
}

Resumption SourceCore::Resume(const ResumeRequest& request) const {
  Resumption resumption;
  resumption.node = host.View();
  resumption.live = host.Live();
  resumption.slot = slots.Get(request.slot);
  if (resumption.live == nullptr || resumption.live->number() != resumption.node.data_generation) {
    resumption.live = nullptr;
    resumption.node.starting = true;  // between two generations
  } else {
    resumption.log = LookAtLog(resumption.live->spool(), request, resumption.slot);
    Lsn damaged = DamagedLsn(resumption.live->number());
    for (const wal::DamagedRange& range : resumption.live->spool().stats().damaged) {
      if (!range.readable) damaged = std::max(damaged, range.last_lsn);
    }
    // What was damaged may have been removed since.
    if (damaged >= resumption.log.first_lsn) resumption.log.damaged_lsn = damaged;
  }
  PlannerOptions planner = options.planner;
  planner.auto_create_slots = planner.auto_create_slots || slots.unknown();  // owners get back what was lost
  resumption.plan = PlanResume(request, resumption.slot, resumption.node, resumption.log, planner);
  return resumption;
}

uint64_t SourceCore::Register(ServedSession* session) {
  MutexLock lock(&sessions_mutex_);
  sessions_[++last_key_] = session;
  return last_key_;
}

void SourceCore::Unregister(uint64_t key) {
  MutexLock lock(&sessions_mutex_);
  sessions_.erase(key);
}

void SourceCore::ForEachSession(const std::function<void(ServedSession&)>& fn) const {
  MutexLock lock(&sessions_mutex_);
  for (const auto& [key, session] : sessions_) fn(*session);
}

void SourceCore::EndSuperseded(uint64_t slot_session) {
  if (slot_session == 0) return;
  {
    MutexLock lock(&mutex_);
    ++counters_.superseded_sessions;
  }
  MutexLock lock(&sessions_mutex_);
  for (const auto& [key, session] : sessions_) {
    if (session->slot_session() != slot_session) continue;
    session->End(MakeError(absl::StatusCode::kAborted, "superseded", "the same process opened a newer session"));
  }
}

absl::StatusOr<slots::Session> SourceCore::TakeSlot(const ResumeRequest& request, const Resumption& resumption,
                                                    Lsn lsn) {
  const slots::SessionOwner owner{request.process_instance, request.incarnation};
  const uint64_t data_generation = resumption.node.data_generation;
  if (!resumption.slot.has_value() && !request.temporary) {
    TOWLINE_RETURN_IF_ERROR(slots.Create(request.slot, request.kind, data_generation, lsn).status());
  }
  uint64_t superseded = 0;
  absl::StatusOr<slots::Session> session =
      request.temporary ? slots.BeginTemporary(request.slot, request.kind, data_generation, lsn, owner, &superseded)
                        : slots.BeginSession(request.slot, owner, &superseded);
  EndSuperseded(superseded);
  return session;
}

absl::Status SourceCore::GiveUpDiverged(const ResumeRequest& request, const Resumption& resumption) {
  if (resumption.plan.reason != "diverged") return absl::OkStatus();
  uint64_t superseded = 0;
  TOWLINE_ASSIGN_OR_RETURN(
      const std::optional<slots::Slot> invalidated,
      slots.Invalidate(request.slot, {request.process_instance, request.incarnation}, resumption.plan.reason,
                       LimitsView(*resumption.live), resumption.node.data_generation, &superseded));
  EndSuperseded(superseded);
  if (invalidated.has_value()) CountInvalidation(invalidated->invalidation->cause);
  return absl::OkStatus();
}

slots::LogView SourceCore::LimitsView(LogAndState& live) const {
  slots::LogView log;
  log.first_lsn = live.spool().stats().first_lsn;
  log.durable_lsn = live.spool().end().lsn;
  log.bytes_behind = [&live](Lsn lsn) { return live.spool().BytesBehind(lsn); };
  log.kept_bytes = options.wal_keep_bytes;
  return log;
}

void SourceCore::MarkDamaged(LogAndState& live, Lsn lsn) {
  logger.Log(LogLevel::kError, "wal_damaged",
             {{"data_generation", live.number()},
              {"lsn", lsn},
              {"next_action", "check the disk; owners that need this record get a snapshot"}});
  for (const wal::DamagedRange& range : live.spool().stats().damaged) {
    if (!range.readable && range.first_lsn <= lsn && lsn <= range.last_lsn) return;
  }
  MutexLock lock(&mutex_);
  Lsn& last = damaged_[live.number()];
  last = std::max(last, lsn);
}

Lsn SourceCore::DamagedLsn(uint64_t data_generation) const {
  MutexLock lock(&mutex_);
  const auto found = damaged_.find(data_generation);
  return found == damaged_.end() ? 0 : found->second;
}

void SourceCore::LogDecision(const ResumeRequest& request, const Plan& plan) {
  const bool refused = plan.decision == Decision::kRefuse || plan.decision == Decision::kRetryAfter;
  const auto pair = [](std::string* out, const std::pair<const std::string, std::string>& number) {
    absl::StrAppend(out, number.first, "=", number.second);
  };
  logger.Log(refused ? LogLevel::kWarning : LogLevel::kInfo, "resync_decision",
             {{"node", request.slot},
              {"kind", request.kind == slots::SlotKind::kReplica ? "replica" : "consumer"},
              {"decision", DecisionName(plan.decision)},
              {"reason", plan.reason},
              {"row", plan.row},
              {"message", plan.message},
              {"numbers", absl::StrJoin(plan.numbers, " ", pair)}});
  MutexLock lock(&mutex_);
  if (!refused) {
    refusals_.erase(request.slot);
    return;
  }
  const std::string key = absl::StrCat(DecisionName(plan.decision), "/", plan.reason);
  std::string& last = refusals_[request.slot];
  if (last == key) return;
  last = key;
  CountLocked(request.kind, plan.decision, plan.reason);
  if (refusals_.size() > kRefusalsMax) refusals_.clear();
}

void SourceCore::CountDecision(const slots::Session& session, slots::SlotKind kind, Decision decision,
                               const std::string& reason) {
  logger.Log(LogLevel::kInfo, "resync_counted",
             {{"node", session.slot}, {"decision", DecisionName(decision)}, {"reason", reason}});
  MutexLock lock(&mutex_);
  CountLocked(kind, decision, reason);
  if (decision != Decision::kPartial) counted_[session.slot] = session.generation;
}

bool SourceCore::IsCounted(const std::string& slot, uint64_t generation) const {
  MutexLock lock(&mutex_);
  const auto found = counted_.find(slot);
  return found != counted_.end() && found->second == generation;
}

absl::Status SourceCore::Revive(const std::string& slot) {
  TOWLINE_RETURN_IF_ERROR(slots.Revive(slot));
  MutexLock lock(&mutex_);
  counted_.erase(slot);
  return absl::OkStatus();
}

void SourceCore::CountLocked(slots::SlotKind kind, Decision decision, const std::string& reason) {
  const std::string key = absl::StrCat(DecisionName(decision), "/", reason);
  if (kind == slots::SlotKind::kConsumer) {
    ++counters_.consumers_by_reason[key];
    return;
  }
  ++counters_.by_reason[key];
  switch (decision) {
    case Decision::kPartial:
      ++counters_.partial_total;
      return;
    case Decision::kFull:
      ++counters_.full_total;
      return;
    case Decision::kRewind:
      ++counters_.rewind_total;
      return;
    case Decision::kRefuse:
      ++counters_.refused_total;
      return;
    case Decision::kRetryAfter:
      return;  // neither a resync nor a refusal
  }
}

void SourceCore::CountStall() {
  MutexLock lock(&mutex_);
  ++counters_.stalls;
}

void SourceCore::CountInvalidation(const std::string& cause) {
  MutexLock lock(&mutex_);
  ++counters_.invalidations_by_cause[cause];
}

void SourceCore::CountRefusedRequest(const std::string& reason) {
  MutexLock lock(&mutex_);
  ++counters_.refused_requests[reason];
}

void SourceCore::CountRecordBytes(uint64_t bytes) {
  MutexLock lock(&mutex_);
  counters_.record_bytes_sent += bytes;
}

void SourceCore::CountSnapshotBytes(uint64_t bytes) {
  MutexLock lock(&mutex_);
  counters_.snapshot_bytes_sent += bytes;
}

void SourceCore::CountSnapshotStream(const std::string& how) {
  MutexLock lock(&mutex_);
  ++counters_.snapshot_streams[how];
}

ResyncCounters SourceCore::counters() const {
  MutexLock lock(&mutex_);
  return counters_;
}

void SourceCore::SetWriteRate(double bytes_per_second) {
  write_rate_.store(bytes_per_second, std::memory_order_relaxed);
  snapshots.SetBusy(bytes_per_second >= kBusyBytesPerSecond);
}

double SourceCore::CatchUpLimit() const {
  const double rate = write_rate_.load(std::memory_order_relaxed);
  const auto snapshot_limit = static_cast<double>(options.snapshots.busy_bytes_per_second);
  if (rate < kBusyBytesPerSecond || snapshot_limit == 0) return 0;
  return std::max(rate * kCatchUpMultiple, snapshot_limit * kCatchUpLeast);
}

void SourceCore::AddHeartbeat(const HeartbeatInfo& heartbeat) {
  MutexLock lock(&mutex_);
  heartbeats_.Add(heartbeat);
}

void SourceCore::ClearHeartbeats() {
  MutexLock lock(&mutex_);
  heartbeats_.Clear();
}

HeartbeatInfo SourceCore::heartbeat() const {
  MutexLock lock(&mutex_);
  return heartbeats_.newest();
}

double SourceCore::LagSeconds(Lsn applied_lsn) const {
  MutexLock lock(&mutex_);
  return heartbeats_.LagSeconds(applied_lsn, clock.MonotonicMicros());
}

void SourceCore::TellSlots(const slots::SlotCopies& news) {
  MutexLock lock(&mutex_);
  slot_feed_.Take(news);
}

std::optional<slots::SlotCopies> SourceCore::SlotNews(uint64_t* told) const {
  MutexLock lock(&mutex_);
  if (slot_feed_.version() == *told) return std::nullopt;
  slots::SlotCopies news = slot_feed_.Since(*told);
  *told = slot_feed_.version();
  return news;
}

}  // namespace towline
