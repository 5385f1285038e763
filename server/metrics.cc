#include "server/metrics.h"

#include <initializer_list>
#include <limits>
#include <optional>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <utility>
#include <vector>

#include "server/status_report.h"
#include "server/version.h"

namespace towline {
namespace {

using Labels = std::vector<prometheus::ClientMetric::Label>;

// Collects families in the order in which they are first named.
class Families {
 public:
  void Gauge(const std::string& name, const std::string& help, double value, Labels labels = {}) {
    Add(prometheus::MetricType::Gauge, name, help, std::move(labels)).gauge.value = value;
  }
  void Counter(const std::string& name, const std::string& help, uint64_t value, Labels labels = {}) {
    Add(prometheus::MetricType::Counter, name, help, std::move(labels)).counter.value = static_cast<double>(value);
  }
  // Mean and percentiles of recent durations.
  void Summary(const std::string& name, const std::string& help, uint64_t count, double sum,
               std::vector<prometheus::ClientMetric::Quantile> quantiles) {
    auto& summary = Add(prometheus::MetricType::Summary, name, help, {}).summary;
    summary.sample_count = count;
    summary.sample_sum = sum;
    summary.quantile = std::move(quantiles);
  }
  // `counts` holds one more bucket than `bounds`, for all above.
  template <typename Bounds, typename Counts>
  void Histogram(const std::string& name, const std::string& help, const Bounds& bounds, const Counts& counts,
                 double sum) {
    auto& histogram = Add(prometheus::MetricType::Histogram, name, help, {}).histogram;
    for (size_t i = 0; i < counts.size(); ++i) {
      histogram.sample_count += counts[i];
      const double bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
      histogram.bucket.push_back({histogram.sample_count, bound});
    }
    histogram.sample_sum = sum;
  }
  // A family without a sample still tells that it exists.
  void Declare(prometheus::MetricType type, const std::string& name, const std::string& help) {
    Find(type, name, help);
  }

  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  prometheus::MetricFamily& Find(prometheus::MetricType type, const std::string& name, const std::string& help) {
    const std::string full = "towline_" + name;
    for (auto& family : families_) {
      if (family.name == full) return family;
    }
    prometheus::MetricFamily& family = families_.emplace_back();
    family.name = full;
    family.help = help;
    family.type = type;
    return family;
  }
  prometheus::ClientMetric& Add(prometheus::MetricType type, const std::string& name, const std::string& help,
                                Labels labels) {
    prometheus::ClientMetric& metric = Find(type, name, help).metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }

  std::vector<prometheus::MetricFamily> families_;
};

void OneHot(Families* out, const std::string& name, const std::string& help, const std::string& label,
            std::initializer_list<const char*> values, const std::string& current, const Labels& more = {}) {
  for (const char* value : values) {
    Labels labels = more;
    labels.push_back({label, value});
    out->Gauge(name, help, current == value ? 1 : 0, std::move(labels));
  }
}

void AddNode(Node& node, const v1::GetStatusResponse& status, Families* out) {
  out->Gauge("build_info", "Version of the server; always 1.", 1, {{"version", kVersion}});
  out->Gauge("start_time_seconds", "Unix time at which the process started.",
             static_cast<double>(node.clock().WallMicros()) / 1e6 - status.uptime_seconds());
  OneHot(out, "role", "1 for the role of the node.", "role", {"primary", "replica"}, status.role());
  OneHot(out, "state", "1 for the state of the node.", "state",
         {"writable", "read_only", "starting", "recovery_required", "streaming", "catching_up", "bootstrapping",
          "rewinding", "stalled", "disconnected", "halted"},
         status.state());
  out->Gauge("exact", "1 if the state is exactly a prefix of the log.", status.exact() ? 1 : 0);
  out->Gauge("term", "Current term.", static_cast<double>(status.term()));
  out->Gauge("log_term", "Term of the last record of the log; 0 = none.",
             status.history().empty() ? 0 : static_cast<double>(status.history().rbegin()->term()));
  out->Gauge("promised_term", "Highest term that the node has promised.", static_cast<double>(status.promised_term()));
  const std::string changes = "Changes of role since the start.";
  out->Declare(prometheus::MetricType::Counter, "role_changes_total", changes);
  for (const auto& [key, count] : node.RoleChangeCounts()) {
    out->Counter("role_changes_total", changes, count, {{"role", key.first}, {"reason", key.second}});
  }
  out->Gauge("insecure", "1 if the node listens beyond loopback without TLS.", node.config().insecure ? 1 : 0);
}

void AddRates(const std::string& name, const std::string& help, const std::optional<Rates>& rates, Families* out) {
  out->Declare(prometheus::MetricType::Gauge, name, help);
  if (!rates) return;
  out->Gauge(name, help, rates->per_second_1m, {{"window", "1m"}});
  out->Gauge(name, help, rates->per_second_15m, {{"window", "15m"}});
}

// Absent = never.
void AddForecast(const std::string& name, const std::string& help, const std::optional<double>& seconds,
                 Families* out) {
  out->Declare(prometheus::MetricType::Gauge, name, help);
  if (seconds) out->Gauge(name, help, *seconds);
}

void AddForecasts(const Forecast& forecast, Families* out) {
  AddRates("wal_append_bytes_per_second", "Growth of the log, smoothed over the window.", forecast.append, out);
  const DiskForecast disk = forecast.disk.value_or(DiskForecast{});
  AddRates("disk_growth_bytes_per_second", "Growth of what is in use of the disk, by whomever, smoothed.", disk.growth,
           out);
  AddForecast("disk_guard_forecast_seconds", "Until disk.guard_ratio is reached at the larger of these rates.",
              disk.seconds_to_guard, out);
  AddForecast("disk_full_forecast_seconds", "Until nothing can be written at the larger of these rates.",
              disk.seconds_to_full, out);
}

void AddDisk(Node& node, Families* out) {
  const absl::StatusOr<SpaceInfo> space = node.Space();
  if (!space.ok()) return;
  out->Gauge("disk_total_bytes", "Size of the file system that holds the data directory.",
             static_cast<double>(space->total_bytes));
  out->Gauge("disk_available_bytes", "What of it can be written.", static_cast<double>(space->available_bytes));
  out->Gauge("disk_used_ratio", "Share of it that is in use, by whomever.", space->used_ratio());
  out->Gauge("disk_guard_ratio", "Share from which on slots are invalidated; 0 = off.", node.config().disk_guard_ratio);
}

void AddScrub(const wal::SpoolStats& stats, Families* out) {
  uint64_t records = 0;
  for (const wal::DamagedRange& range : stats.damaged) {
    if (!range.readable) records += range.last_lsn - range.first_lsn + 1;
  }
  out->Gauge("wal_damaged_ranges", "Ranges of the log that are known to be damaged on disk.",
             static_cast<double>(stats.damaged.size()));
  out->Gauge("wal_damaged_records", "Records in them that cannot be read.", static_cast<double>(records));
  out->Counter("wal_scrub_bytes_total", "Bytes of sealed segments verified in the background since the start.",
               stats.scrub.bytes);
  out->Counter("wal_scrub_passes_total", "Passes over all sealed segments that ended since the start.",
               stats.scrub.passes);
  out->Counter("wal_scrub_indexes_rebuilt_total", "Seek indexes that a pass made anew.", stats.scrub.indexes_rebuilt);
  const std::pair<const char*, std::pair<const char*, double>> last_pass[] = {
      {"timestamp_seconds",
       {"Unix time at which the last pass ended.", static_cast<double>(stats.scrub.last_pass_end_us) / 1e6}},
      {"duration_seconds", {"Duration of the last pass.", static_cast<double>(stats.scrub.last_pass_micros) / 1e6}},
      {"bytes", {"Bytes that the last pass read.", static_cast<double>(stats.scrub.last_pass_bytes)}},
      {"segments", {"Segments that the last pass read.", static_cast<double>(stats.scrub.last_pass_segments)}},
      {"damaged_ranges",
       {"Damaged ranges that the last pass found.", static_cast<double>(stats.scrub.last_pass_damages)}},
  };
  for (const auto& [name, gauge] : last_pass) {
    const std::string full = std::string("wal_scrub_last_pass_") + name;
    if (stats.scrub.passes > 0) {
      out->Gauge(full, gauge.first, gauge.second);
    } else {
      out->Declare(prometheus::MetricType::Gauge, full, gauge.first);
    }
  }
}

void AddWal(Node& node, const v1::GetStatusResponse& status, Families* out) {
  const v1::WalStatus& wal = status.wal();
  out->Gauge("wal_first_lsn", "First retained LSN.", static_cast<double>(wal.first_lsn()));
  out->Gauge("wal_durable_lsn", "Last LSN covered by fdatasync.", static_cast<double>(wal.durable_lsn()));
  out->Gauge("wal_committed_lsn", "Highest LSN that meets the commit level.", static_cast<double>(wal.committed_lsn()));
  out->Gauge("wal_retained_bytes", "Bytes of log on disk.", static_cast<double>(wal.retained_bytes()));
  out->Gauge("wal_segments", "Segments of the log.", static_cast<double>(wal.segments()));
  wal::SpoolStats stats;
  if (const auto live = node.Live()) stats = live->spool().stats();
  out->Counter("wal_append_records_total", "Records appended since the start.", stats.appended_records);
  out->Counter("wal_append_bytes_total", "Bytes of frames appended since the start.", stats.appended_bytes);
  out->Counter("wal_groups_total", "Groups appended since the start; each is one write and one fdatasync.",
               stats.groups);
  out->Gauge("wal_poisoned", "1 if a write or sync of the log has failed for good.", stats.poisoned ? 1 : 0);
  out->Gauge("wal_disk_full", "1 while writes are refused, or wait, for want of space.", node.DiskFull() ? 1 : 0);
  out->Summary("wal_fsync_duration_seconds", "Duration of the log's fdatasync calls; quantiles of the last 1024.",
               stats.fsyncs, stats.fsync_seconds_sum,
               {{0.5, wal.fsync_p50_seconds()}, {0.99, wal.fsync_p99_seconds()}});
  AddScrub(stats, out);
  out->Gauge("store_applied_lsn", "Last LSN visible in the state.", static_cast<double>(status.store().applied_lsn()));
  out->Gauge("store_persisted_lsn", "Last LSN that the store would reopen with.",
             static_cast<double>(status.store().persisted_lsn()));
  out->Gauge("store_estimated_keys", "Estimated number of keys.", static_cast<double>(status.store().estimated_keys()));
}

void AddWrites(Node& node, Families* out) {
  const Sequencer* const sequencer = node.sequencer();
  if (sequencer == nullptr) return;
  const SequencerStats stats = sequencer->stats();
  out->Counter("write_records_total", "Records written since the start.", stats.records_total);
  out->Counter("write_refused_total", "Records refused by conditions, request ids or a full disk.",
               stats.refused_total);
  out->Counter("write_duplicates_total", "Writes whose request id had been seen.", stats.duplicates_total);
  out->Gauge("write_queue_bytes", "Bytes of writes that are not answered yet.", static_cast<double>(stats.queue_bytes));
  out->Counter("expired_keys_total", "Keys deleted because they had expired.", node.expired_total());
}

// On a primary only.
void AddCommit(Node& node, const v1::CommitStatus& status, Families* out) {
  PrimaryRole* const role = node.primary();
  if (role == nullptr) return;
  const CommitStats stats = role->commit().stats();
  const FlowStats flow = role->flow().stats();
  out->Gauge("commit_counting_members", "Counting members besides the primary.", stats.counting_members);
  out->Gauge("commit_acking_members", "Of these, those whose acks arrive now.", stats.acking_members);
  out->Gauge("commit_min_replicas", "Least number of replicas that a write may ask for, as it is in force.",
             stats.min_replicas);
  out->Gauge("commit_pending_members_records", "Members records that do not have their full effect yet.",
             stats.pending_records);
  out->Gauge("commit_waiters", "Writes that wait for replicas.", static_cast<double>(stats.waiters));
  out->Gauge("commit_waiting_bytes", "What they hold in memory.", static_cast<double>(stats.waiting_bytes));
  out->Histogram("commit_wait_seconds", "Time that writes waited for replicas once they were durable here.",
                 CommitStats::kWaitBounds, stats.wait_buckets, stats.wait_seconds_sum);
  out->Counter("commit_timeouts_total", "Writes that waited longer than their timeout.", stats.timeouts_total);
  out->Gauge("commit_degraded",
             "1 while writes are answered at a lower level than asked for, for want of acks in time.",
             stats.degraded ? 1 : 0);
  out->Counter("commit_degraded_episodes_total", "Times that this began.", stats.degraded_episodes_total);
  out->Counter("commit_degraded_records_total", "Records that were so answered.", stats.degraded_records_total);
  out->Gauge("commit_exposed_bytes", "Log that is answered and not yet where the default level asks for.",
             static_cast<double>(status.exposed_bytes()));
  out->Gauge("commit_exposed_seconds", "Age of the oldest of it.", status.exposed_seconds());
  OneHot(out, "flow_state", "1 for the state of flow control.", "state", {"off", "open", "slowed", "refused"},
         status.flow());
  out->Gauge("flow_lag_bytes", "Bytes that the replicas are behind, as flow control sees it.",
             static_cast<double>(flow.lag_bytes));
  out->Counter("flow_slowed_writes_total", "Writes that had to wait for it.", flow.slowed_total);
  out->Counter("flow_refused_writes_total", "Writes that it refused.", flow.refused_total);
}

void AddReplicas(const v1::GetStatusResponse& status, Families* out) {
  const std::string stage_help = "Last LSN of a replica, by stage.";
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    const Labels labels = {{"replica", replica.node_id()}};
    const std::pair<const char*, uint64_t> stages[] = {{"sent", replica.sent_lsn()},
                                                       {"received", replica.received_lsn()},
                                                       {"flushed", replica.flushed_lsn()},
                                                       {"applied", replica.applied_lsn()}};
    for (const auto& [stage, lsn] : stages) {
      out->Gauge("replication_lsn", stage_help, static_cast<double>(lsn),
                 {{"replica", replica.node_id()}, {"stage", stage}});
    }
    out->Gauge("replication_lag_records", "Records between the durable LSN and the replica's applied one.",
               static_cast<double>(replica.lag_records()), labels);
    out->Gauge("replication_lag_bytes", "Bytes of log between the same.", static_cast<double>(replica.lag_bytes()),
               labels);
    if (replica.has_lag_seconds()) {
      out->Gauge("replication_lag_seconds", "Age of the oldest heartbeat that the replica's state does not cover.",
                 replica.lag_seconds(), labels);
    }
    out->Gauge("replication_connected", "1 while the replica has a session.", replica.has_lag_seconds() ? 1 : 0,
               labels);
    out->Gauge("replication_stalled", "1 while the replica is behind and makes no progress.",
               replica.state() == "stalled" ? 1 : 0, labels);
  }
}

// By stage, of replicas and consumers: slot names, as a consumer has no node id.
void AddLag(const v1::GetStatusResponse& status, Families* out) {
  const std::string records_help = "Records between the durable LSN and the stage of a replica or consumer.";
  const std::string bytes_help = "Bytes of log between the same.";
  const std::string seconds_help =
      "Age of the oldest heartbeat that the stage does not cover; absent without a session.";
  const auto add = [&](const v1::ReplicaStatus& peer) {
    for (const v1::StageLag& lag : peer.stages()) {
      const Labels labels = {{"slot", peer.slot()}, {"stage", lag.stage()}};
      out->Gauge("replica_lag_records", records_help, static_cast<double>(lag.records()), labels);
      out->Gauge("replica_lag_bytes", bytes_help, static_cast<double>(lag.bytes()), labels);
      if (lag.has_seconds()) out->Gauge("replica_lag_seconds", seconds_help, lag.seconds(), labels);
    }
  };
  out->Declare(prometheus::MetricType::Gauge, "replica_lag_records", records_help);
  out->Declare(prometheus::MetricType::Gauge, "replica_lag_bytes", bytes_help);
  out->Declare(prometheus::MetricType::Gauge, "replica_lag_seconds", seconds_help);
  for (const v1::ReplicaStatus& replica : status.replicas()) add(replica);
  for (const v1::ReplicaStatus& consumer : status.consumers()) add(consumer);
}

const char* StateName(v1::SlotState state) {
  switch (state) {
    case v1::SLOT_STATE_ACTIVE:
      return "active";
    case v1::SLOT_STATE_BOOTSTRAPPING:
      return "bootstrapping";
    case v1::SLOT_STATE_REWINDING:
      return "rewinding";
    case v1::SLOT_STATE_INVALIDATED:
      return "invalidated";
    default:
      return "inactive";
  }
}

// Apart from the slots that are served here: an alert on those is raised by the node that serves them.
void AddSlotCopies(const v1::GetStatusResponse& status, Families* out) {
  const std::string held_help =
      "1 if the log that the owner of a copied slot needs is here, should this node be promoted.";
  const std::string confirmed_help = "Last LSN that the owner of a copied slot no longer needs, as the primary told.";
  const std::string bytes_help = "Bytes of log that a copied slot holds back here.";
  const auto gauge = prometheus::MetricType::Gauge;
  out->Declare(gauge, "slot_copy_held", held_help);
  out->Declare(gauge, "slot_copy_confirmed_lsn", confirmed_help);
  out->Declare(gauge, "slot_copy_retained_bytes", bytes_help);
  for (const v1::Slot& slot : status.slots()) {
    if (slot.origin().empty()) continue;
    const Labels labels = {{"slot", slot.name()}, {"origin", slot.origin()}};
    out->Gauge("slot_copy_held", held_help, slot.health() == v1::SLOT_HEALTH_LOST ? 0 : 1, labels);
    out->Gauge("slot_copy_confirmed_lsn", confirmed_help, static_cast<double>(slot.confirmed_lsn()), labels);
    out->Gauge("slot_copy_retained_bytes", bytes_help, static_cast<double>(slot.retained_bytes()), labels);
  }
}

void AddSlots(Node& node, const v1::GetStatusResponse& status, Families* out) {
  const std::string headroom_help = "The same in seconds, at the rates of the log and the slot; absent = never.";
  out->Declare(prometheus::MetricType::Gauge, "slot_headroom_seconds", headroom_help);
  AddSlotCopies(status, out);
  for (const v1::Slot& slot : status.slots()) {
    if (!slot.origin().empty()) continue;
    const Labels labels = {{"slot", slot.name()}};
    OneHot(out, "slot_state", "1 for the state of the slot.", "state",
           {"active", "inactive", "bootstrapping", "rewinding", "invalidated"}, StateName(slot.state()), labels);
    out->Gauge("slot_temporary", "1 if the slot is gone with its session.", slot.temporary() ? 1 : 0, labels);
    out->Gauge("slot_confirmed_lsn", "Last LSN that the owner no longer needs.",
               static_cast<double>(slot.confirmed_lsn()), labels);
    out->Gauge("slot_retained_bytes", "Bytes of log that the slot holds back.",
               static_cast<double>(slot.retained_bytes()), labels);
    out->Gauge("slot_headroom_bytes", "Bytes until the slot is invalidated.",
               static_cast<double>(slot.headroom_bytes()), labels);
    if (slot.has_headroom_seconds()) {
      out->Gauge("slot_headroom_seconds", headroom_help, slot.headroom_seconds(), labels);
    }
  }
  out->Counter("slot_saves_total", "Writes of the slot table.", node.slots().saves_total());
  out->Gauge("slots_unknown", "1 while a lost slot table is not accepted: slots may be missing, no log is removed.",
             node.slots().unknown() ? 1 : 0);
}

void AddResync(const ResyncCounters& counters, Families* out) {
  const std::string help = "Resync decisions of replicas that took effect, by decision and reason.";
  out->Declare(prometheus::MetricType::Counter, "resync_decisions_total", help);
  for (const auto& [key, count] : counters.by_reason) {
    const size_t slash = key.find('/');
    out->Counter("resync_decisions_total", help, count,
                 {{"decision", key.substr(0, slash)}, {"reason", key.substr(slash + 1)}});
  }
  out->Counter("resync_partial_total", "Partial resyncs of replicas.", counters.partial_total);
  out->Counter("resync_full_total", "Full resyncs of replicas.", counters.full_total);
  out->Counter("resync_rewind_total", "Rewinds of replicas.", counters.rewind_total);
  out->Counter("resync_refused_total", "Refused resyncs of replicas.", counters.refused_total);
  const std::string consumer_help = "Resume decisions of consumers that took effect, by decision and reason.";
  out->Declare(prometheus::MetricType::Counter, "consumer_decisions_total", consumer_help);
  for (const auto& [key, count] : counters.consumers_by_reason) {
    const size_t slash = key.find('/');
    out->Counter("consumer_decisions_total", consumer_help, count,
                 {{"decision", key.substr(0, slash)}, {"reason", key.substr(slash + 1)}});
  }
  const std::string invalidation_help = "Slots that were invalidated, by cause.";
  out->Declare(prometheus::MetricType::Counter, "slot_invalidations_total", invalidation_help);
  for (const auto& [cause, count] : counters.invalidations_by_cause) {
    out->Counter("slot_invalidations_total", invalidation_help, count, {{"cause", cause}});
  }
  const std::string refused_help = "Requests on pull streams that were refused, which ends the session, by reason.";
  out->Declare(prometheus::MetricType::Counter, "replication_refused_requests_total", refused_help);
  for (const auto& [reason, count] : counters.refused_requests) {
    out->Counter("replication_refused_requests_total", refused_help, count, {{"reason", reason}});
  }
  out->Counter("replication_sessions_superseded_total", "Sessions ended by a newer one of the same process.",
               counters.superseded_sessions);
  out->Counter("replication_stalls_total", "Times a session fell behind without progress.", counters.stalls);
  out->Counter("snapshot_sent_bytes_total", "Bytes of snapshots sent.", counters.snapshot_bytes_sent);
  out->Counter("replication_sent_bytes_total", "Bytes of records sent.", counters.record_bytes_sent);
}

// What this node sends.
void AddSnapshots(const SnapshotsStatus& snapshots, const ResyncCounters& counters, Families* out) {
  const SnapshotPoolStatus& pool = snapshots.pool;
  out->Gauge("snapshots_live", "Snapshots of the store that are held for streams.", static_cast<double>(pool.live));
  out->Gauge("snapshots_oldest_age_seconds", "Age of the oldest of them.", pool.oldest_seconds);
  out->Gauge("snapshots_pinned_bytes", "Bytes of store files that are kept for snapshots and scans only.",
             static_cast<double>(pool.pinned_bytes));
  out->Gauge("snapshot_sends", "Snapshots that are being sent.", static_cast<double>(pool.sessions));
  const std::string streams_help = "Snapshot streams, by how they began.";
  out->Declare(prometheus::MetricType::Counter, "snapshot_streams_total", streams_help);
  for (const char* how : {"new", "joined", "resumed", "rolled", "restarted", "saved"}) {
    const auto found = counters.snapshot_streams.find(how);
    const uint64_t count = found == counters.snapshot_streams.end() ? 0 : found->second;
    out->Counter("snapshot_streams_total", streams_help, count, {{"how", how}});
  }
  const std::string send_help = "Bytes that a snapshot stream has sent, with what went before a cut.";
  out->Declare(prometheus::MetricType::Gauge, "snapshot_send_bytes", send_help);
  for (const SnapshotSend& send : snapshots.sends) {
    out->Gauge("snapshot_send_bytes", send_help, static_cast<double>(send.bytes), {{"slot", send.slot}});
  }
}

// What this node loads.
void AddBootstrap(Node& node, Families* out) {
  const std::optional<ReplicaStatusView> status = node.ReplicaStatus();
  if (!status) return;
  const BootstrapProgress progress = status->bootstrap.value_or(BootstrapProgress{});
  out->Gauge("bootstrap_running", "1 while a snapshot is loaded, or the log behind it is replayed.",
             status->bootstrap.has_value() ? 1 : 0);
  out->Gauge("bootstrap_bytes", "Bytes of the snapshot that were taken.", static_cast<double>(progress.bytes));
  out->Gauge("bootstrap_durable_bytes", "Of them, those that are not sent again whatever ends.",
             static_cast<double>(progress.durable_bytes));
  out->Gauge("bootstrap_estimated_bytes", "Bytes of the snapshot in all, estimated.",
             static_cast<double>(progress.estimated_bytes));
  out->Gauge("bootstrap_keys", "Keys that were taken.", static_cast<double>(progress.keys));
  out->Gauge("bootstrap_bytes_per_second", "Rate over the last seconds.", progress.bytes_per_second);
  out->Gauge("bootstrap_last_duration_seconds", "Of the last load that was finished; 0 = none was.",
             status->bootstrap_seconds);
  out->Counter("bootstrap_received_bytes_total", "Bytes of chunks received.", status->bootstrap_bytes);
  out->Counter("bootstrap_received_again_bytes_total", "Of them, those that had been received before.",
               status->bootstrap_bytes_again);
  out->Counter("bootstrap_resumes_total", "Streams that went on behind a cut.", status->bootstrap_resumes);
  out->Counter("bootstrap_restarts_total", "Loads that were begun again.", status->bootstrap_restarts);
  out->Counter("bootstraps_total", "Loads that were finished.", status->full_resyncs);
}

// From where this node can go back, and what it gave up so.
void AddRewind(const v1::RewindStatus& rewind, Families* out) {
  const auto& lsns = rewind.checkpoint_lsns();
  out->Gauge("rewind_checkpoints", "Rewind checkpoints that are kept.", lsns.size());
  out->Gauge("rewind_oldest_lsn", "Record from which on this node can go back without a snapshot; 0 = nowhere.",
             lsns.empty() ? 0 : static_cast<double>(lsns[0]));
  out->Counter("rewind_checkpoints_made_total", "Rewind checkpoints made.", rewind.checkpoints_made());
  out->Counter("rewind_checkpoints_given_up_total", "Rewind checkpoints given up for want of space or for their age.",
               rewind.checkpoints_given_up());
  out->Counter("rewinds_total", "Rewinds that this node made.", rewind.rewinds_total());
  out->Counter("rewind_discarded_records_total", "Records that they put into quarantine.",
               rewind.discarded_records_total());
  out->Counter("rewind_not_possible_total", "Rewinds that could not be made, so that a snapshot was loaded.",
               rewind.not_possible_total());
}

}  // namespace

std::string RenderMetrics(Node& node) {
  v1::GetStatusResponse status;
  FillStatus(node, &status);
  Families families;
  AddNode(node, status, &families);
  AddWal(node, status, &families);
  AddDisk(node, &families);
  AddForecasts(node.source().ForecastNode(), &families);
  AddWrites(node, &families);
  AddCommit(node, status.commit(), &families);
  AddReplicas(status, &families);
  AddLag(status, &families);
  AddSlots(node, status, &families);
  const ResyncCounters counters = node.source().Counters();
  AddResync(counters, &families);
  AddSnapshots(node.source().Snapshots(), counters, &families);
  AddBootstrap(node, &families);
  AddRewind(status.rewind(), &families);
  return families.Text();
}

}  // namespace towline
