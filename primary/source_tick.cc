// Timer work of the source: heartbeats, stalls and timeouts, slot saves, limits, pruning.

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "primary/snapshot_start.h"
#include "primary/source_impl.h"

namespace towline {
namespace {

// Over so long the growth of the log is measured.
constexpr int64_t kWritersMicros = 250'000;
constexpr int64_t kTickMicros = 50'000;
// While streams wait for a rate limit: what they then send at once is little, and so is what writers wait for it.
constexpr int64_t kPacedTickMicros = 4'000;

}  // namespace

absl::Status ReplicationSourceImpl::Tick() {
  const int64_t now = core_.clock.MonotonicMicros();
  const NodeView node = core_.host.View();
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  MakeHeartbeat(node, live.get(), now);
  if (live != nullptr) LookAtWriters(*live, now);
  const TickView view{now, live == nullptr ? 0 : live->spool().end().lsn};
  core_.ForEachSession([&view](ServedSession& session) { session.OnTick(view); });
  absl::Status status;
  if (now >= next_retention_micros_) {
    next_retention_micros_ = now + core_.options.slots_persist_micros;
    AdoptSnapshots(core_);
    core_.snapshots.Tick();
    status = core_.slots.SaveIfDirty();
    if (status.ok() && live != nullptr) status = Retain(*live, node, now);
  } else if (live != nullptr) {
    status = LimitGrowth(*live);
  }
  if (!absl::IsResourceExhausted(status)) return status;
  // The slot files have their space, so this is a directory that has none yet, or a spool that cannot remove.
  core_.logger.Log(LogLevel::kWarning, "retention_disk_full", {{"error", status.message()}});
  return absl::OkStatus();
}

int64_t ReplicationSourceImpl::TickMicros() const {
  const bool paced = core_.clock.MonotonicMicros() - core_.paced_micros() < 2 * kTickMicros;
  return paced ? kPacedTickMicros : kTickMicros;
}

void ReplicationSourceImpl::MakeHeartbeat(const NodeView& node, LogAndState* live, int64_t now) {
  const bool is_primary = node.is_primary && !node.starting;
  if (is_primary != was_primary_) core_.ClearHeartbeats();  // those of the other role are of another line
  was_primary_ = is_primary;
  if (!is_primary || live == nullptr || now < next_heartbeat_micros_) return;
  next_heartbeat_micros_ = now + core_.options.heartbeat_micros;
  HeartbeatInfo heartbeat;
  heartbeat.sequence = core_.heartbeat().sequence + 1;
  heartbeat.durable_lsn = live->spool().end().lsn;
  heartbeat.committed_lsn = std::min(heartbeat.durable_lsn, core_.host.CommittedLsn());
  heartbeat.made_micros = now;
  core_.AddHeartbeat(heartbeat);
  core_.ForEachSession([](ServedSession& session) { session.OnNews(); });
}

void ReplicationSourceImpl::ForwardHeartbeat(const HeartbeatInfo& heartbeat) {
  core_.AddHeartbeat(heartbeat);
  core_.ForEachSession([](ServedSession& session) { session.OnNews(); });
}

void ReplicationSourceImpl::OnPathChanged() {
  core_.RaisePathVersion();
  core_.ForEachSession([](ServedSession& session) { session.OnNews(); });
}

absl::Status ReplicationSourceImpl::Retain(LogAndState& live, const NodeView& node, int64_t now) {
  MeasureDisk();
  MeasureRates(live, now);
  MutexLock lock(&core_.resume_mutex);
  core_.ForEachSession([](ServedSession& session) { session.OnRetention(); });
  TOWLINE_RETURN_IF_ERROR(ExchangeCopies(live, node));
  TOWLINE_RETURN_IF_ERROR(ApplyLimits(live, disk_used_ratio_).status());
  TOWLINE_RETURN_IF_ERROR(HoldAgain(live));
  return Prune(live);
}

// A primary tells what it has saved of its slots, a replica saves what it was told.
absl::Status ReplicationSourceImpl::ExchangeCopies(LogAndState& live, const NodeView& node) {
  if (node.is_primary) {
    core_.TellSlots({0, node.node_id, true, core_.slots.SavedSlots(live.number()), {}});
    return absl::OkStatus();
  }
  uint64_t nothing = 0;
  const std::optional<slots::SlotCopies> all = core_.SlotNews(&nothing);
  if (!all.has_value() || all->origin == node.node_id) return absl::OkStatus();  // what it told as a primary
  slots::LogView log = core_.LimitsView(live);
  log.disk_used_ratio = disk_used_ratio_;
  return core_.slots.SaveCopies(*all, node.node_id, log, live.number());
}

absl::StatusOr<std::vector<slots::Slot>> ReplicationSourceImpl::TakeOverSlots(Term term) {
  const NodeView node = core_.host.View();
  const std::shared_ptr<LogAndState> live = core_.host.Live();
  if (live == nullptr) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "no_data", "the node has no log to serve slots from");
  }
  MutexLock lock(&core_.resume_mutex);
  TOWLINE_ASSIGN_OR_RETURN(std::vector<slots::Slot> lost,
                           core_.slots.TakeOver(term, node.node_id, core_.LimitsView(*live), live->number()));
  core_.TellSlots({term, node.node_id, true, core_.slots.SavedSlots(live->number()), {}});
  return lost;
}

void ReplicationSourceImpl::MeasureDisk() {
  if (!core_.options.disk_space) return;
  const absl::StatusOr<SpaceInfo> space = core_.options.disk_space();
  disk_used_ratio_ = space.ok() ? space->used_ratio() : 0;
  {
    MutexLock lock(&mutex_);
    disk_ = space.ok() ? std::optional<SpaceInfo>(*space) : std::nullopt;
  }
  const bool warn = core_.options.disk_warn_ratio > 0 && disk_used_ratio_ >= core_.options.disk_warn_ratio;
  if (warn != disk_warned_) {
    core_.logger.Log(warn ? LogLevel::kWarning : LogLevel::kInfo, warn ? "disk_nearly_full" : "disk_has_room",
                     {{"disk_used_ratio", absl::StrFormat("%.3f", disk_used_ratio_)},
                      {"disk_warn_ratio", absl::StrFormat("%.3f", core_.options.disk_warn_ratio)},
                      {"disk_guard_ratio", absl::StrFormat("%.3f", core_.slots.limits().disk_guard_ratio)}});
  }
  disk_warned_ = warn;
}

void ReplicationSourceImpl::LookAtWriters(LogAndState& live, int64_t now) {
  const int64_t elapsed = now - writers_micros_;
  if (elapsed < kWritersMicros) return;
  const uint64_t appended = live.spool().stats().appended_bytes;
  const bool same_log = writers_generation_ == live.number() && appended >= writers_bytes_;
  const uint64_t written = same_log ? appended - writers_bytes_ : 0;
  core_.SetWriteRate(static_cast<double>(written) * 1e6 / static_cast<double>(elapsed));
  writers_micros_ = now;
  writers_generation_ = live.number();
  writers_bytes_ = appended;
}

// A fast writer adds many segments between two retentions, and a slot over its limit would hold them all.
absl::Status ReplicationSourceImpl::LimitGrowth(LogAndState& live) {
  const uint64_t appended = live.spool().stats().appended_bytes;
  const bool same_log = limits_generation_ == live.number() && appended >= limits_bytes_;
  if (same_log && appended - limits_bytes_ < core_.options.limits_check_bytes) return absl::OkStatus();
  MutexLock lock(&core_.resume_mutex);
  TOWLINE_ASSIGN_OR_RETURN(const bool invalidated, ApplyLimits(live, /*disk_used_ratio=*/0));
  if (!invalidated) return absl::OkStatus();
  core_.ForEachSession([](ServedSession& session) { session.OnRetention(); });
  return Prune(live);
}

absl::StatusOr<bool> ReplicationSourceImpl::ApplyLimits(LogAndState& live, double disk_used_ratio) {
  limits_generation_ = live.number();
  limits_bytes_ = live.spool().stats().appended_bytes;
  slots::LogView log = core_.LimitsView(live);
  log.disk_used_ratio = disk_used_ratio;
  if (const NodeView node = core_.host.View(); node.is_primary) {
    log.needed_count = std::max(core_.options.commit_replicas, node.members.min_replicas);
    for (const MemberInfo& member : node.members.members) {
      if (member.counting && member.node_id != node.node_id) log.needed_slots.insert(member.node_id);
    }
  }
  TOWLINE_ASSIGN_OR_RETURN(const std::vector<slots::Slot> invalidated, core_.slots.EnforceLimits(log, live.number()));
  for (const slots::Slot& slot : invalidated) {
    core_.CountInvalidation(slot.invalidation->cause);
    core_.ForEachSession([&slot](ServedSession& session) { session.OnInvalidated(slot.name); });
  }
  return !invalidated.empty();
}

// A slot that was invalidated under a session goes on without holding the log. Once its owner has made up a quarter of
// the limit, and nothing that it needs is gone, it holds the log again.
absl::Status ReplicationSourceImpl::HoldAgain(LogAndState& live) {
  const double guard = core_.slots.limits().disk_guard_ratio;
  if (guard > 0 && disk_used_ratio_ >= guard) return absl::OkStatus();
  const uint64_t most = core_.slots.limits().max_retained_bytes / 4 * 3;
  for (const slots::Slot& slot : core_.slots.List()) {
    if (slot.state != slots::SlotState::kInvalidated || slot.data_generation != live.number()) continue;
    if (live.spool().BytesBehind(slot.confirmed_lsn) > most) continue;
    if (slot.confirmed_lsn + 1 < live.spool().stats().first_lsn) continue;
    bool streams = false;
    core_.ForEachSession([&](ServedSession& session) { streams = session.HoldAgain(slot.name) || streams; });
    if (!streams) continue;
    TOWLINE_RETURN_IF_ERROR(core_.slots.Revive(slot.name));
    core_.logger.Log(LogLevel::kInfo, "slot_revived", {{"slot", slot.name}, {"confirmed_lsn", slot.confirmed_lsn}});
  }
  return absl::OkStatus();
}

absl::Status ReplicationSourceImpl::Prune(LogAndState& live) {
  wal::Spool& spool = live.spool();
  const Lsn slots_floor = core_.slots.Floor(live.number());
  if (slots_floor == 0) return absl::OkStatus();  // the table is unknown: nothing may go
  TOWLINE_ASSIGN_OR_RETURN(const Lsn persisted, live.state().PersistedLsn());
  Lsn floor = std::min(slots_floor, persisted + 1);
  if (Failpoint("source_prune_without_slots")) floor = persisted + 1;
  const wal::SpoolStats before = spool.stats();
  TOWLINE_ASSIGN_OR_RETURN(const Lsn first, spool.Prune(floor, core_.options.wal_keep_bytes, [this, &live](Lsn lsn) {
    return core_.slots.SaveFirstRetained(live.number(), lsn);
  }));
  if (first <= before.first_lsn) return absl::OkStatus();
  const wal::SpoolStats after = spool.stats();
  core_.logger.Log(LogLevel::kInfo, "wal_pruned",
                   {{"old_first_lsn", before.first_lsn},
                    {"first_lsn", first},
                    {"durable_lsn", after.durable_lsn},
                    {"slots_floor", slots_floor == std::numeric_limits<Lsn>::max() ? 0 : slots_floor},
                    {"persisted_lsn", persisted},
                    {"keep_bytes", core_.options.wal_keep_bytes},
                    {"removed_bytes", before.retained_bytes - std::min(before.retained_bytes, after.retained_bytes)},
                    {"retained_bytes", after.retained_bytes}});
  return absl::OkStatus();
}

void ReplicationSourceImpl::MeasureRates(LogAndState& live, int64_t now) {
  const std::vector<slots::Slot> slots = core_.slots.List();
  LogRates::Look look;
  look.now_micros = now;
  look.data_generation = live.number();
  look.appended_bytes = live.spool().stats().appended_bytes;
  look.bytes_behind = [&live](Lsn lsn) { return live.spool().BytesBehind(lsn); };
  MutexLock lock(&mutex_);
  if (disk_) look.disk_used_bytes = disk_->total_bytes - std::min(disk_->total_bytes, disk_->available_bytes);
  rates_.Observe(look, slots);
}

}  // namespace towline
