#include "server/node.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "replica/pull_messages.h"
#include "server/common_lsn.h"

namespace towline {
namespace {

constexpr int64_t kWatermarkIdleMicros = 1'000'000;
constexpr int64_t kChangeMembersMicros = 10'000'000;
constexpr int64_t kCommonLsnMicros = 1'000'000;

RewindOptions RewindOptionsOf(const NodeConfig& config) {
  RewindOptions options;
  options.interval_micros = config.rewind_checkpoint_interval_micros;
  options.log_bytes = config.rewind_checkpoint_bytes;
  options.age_max_micros = config.rewind_max_age_micros;
  options.held_bytes_max = std::max(config.rewind_max_bytes, config.wal_keep_bytes);
  options.disk_warn_ratio = config.disk_warn_ratio;
  options.disk_guard_ratio = config.disk_guard_ratio;
  return options;
}

}  // namespace

Node::Node(const NodeConfig& config, const NodeDependencies& deps)
    : config_(config),
      deps_(deps),
      environment_{deps.fs,
                   deps.clock,
                   deps.rng,
                   deps.executor,
                   deps.logger,
                   deps.stores,
                   config.data_dir,
                   {},
                   {},
                   [this](absl::Status status) { Fatal(status); }},
      started_micros_(deps.clock.MonotonicMicros()),
      process_instance_(NewId(deps.rng)),
      advertised_(config.advertise.empty() ? config.listen : config.advertise) {
  environment_.spool_options.segment_bytes = config.wal_segment_bytes;
  environment_.spool_options.spare_segments = static_cast<int>(config.wal_spare_segments);
  environment_.spool_options.scrub_bytes_per_second = config.wal_scrub_rate;
  environment_.spool_options.scrub_interval_micros = config.wal_scrub_interval_micros;
  environment_.applier_options.flush_bytes = config.store_flush_bytes;
  environment_.applier_options.flush_interval_micros = config.store_flush_interval_micros;
  environment_.rewind_options = RewindOptionsOf(config);
}

absl::StatusOr<std::unique_ptr<Node>> Node::Open(const NodeConfig& config, const NodeDependencies& deps) {
  std::unique_ptr<Node> node(new Node(config, deps));
  TOWLINE_ASSIGN_OR_RETURN(node->directory_, OpenDataDirectory(config, node->environment_));
  node->role_.store(node->directory_.control->Get().role);
  if (node->role_.load() != config.role) {
    deps.logger.Log(LogLevel::kWarning, "role_from_control",
                    {{"role", node->is_primary() ? "primary" : "replica"},
                     {"reason", "the data directory decides the role; the command line only for an empty one"}});
  }
  if (node->directory_.live != nullptr) {
    MutexLock lock(&node->mutex_);
    node->live_ = node->MakeLive(node->directory_.live);
  }
  node->directory_.live.reset();
  SourceOptions options;
  options.planner.auto_create_slots = config.slots_auto_create;
  options.planner.replay_max_bytes = config.bootstrap_replay_max_bytes;
  options.snapshots.snapshots_max = static_cast<int>(config.bootstrap_max_snapshots);
  options.snapshots.sessions_max = static_cast<int>(config.bootstrap_max_sessions);
  options.snapshots.join_micros = config.bootstrap_join_window_micros;
  options.snapshots.age_max_micros = config.bootstrap_max_snapshot_age_micros;
  options.snapshots.bytes_per_second = config.bootstrap_rate_limit;
  options.snapshots.busy_bytes_per_second = config.bootstrap_busy_rate_limit;
  options.heartbeat_micros = config.replication_heartbeat_micros;
  options.stall_timeout_micros = config.replication_stall_timeout_micros;
  options.slots_persist_micros = config.slots_persist_interval_micros;
  options.wal_keep_bytes = config.wal_keep_bytes;
  options.limits_check_bytes = config.wal_segment_bytes / 4;
  options.commit_replicas = static_cast<uint32_t>(config.durability_replicas);
  options.disk_warn_ratio = config.disk_warn_ratio;
  options.disk_space = [self = node.get()] { return self->Space(); };
  node->source_ = NewReplicationSource(*node, *node->directory_.slots, deps.clock, deps.rng, deps.logger, options);
  node->MakeLifecycle();
  node->MakePulling();
  node->MakeFailover();
  return node;
}

Node::~Node() { Stop(); }

void Node::MakeLifecycle() {
  LifecycleDependencies deps{config_, *this, {}, {}, {}, deps_.make_upstream, deps_.ask_peer, {}};
  deps.view = [this] { return View(); };
  deps.self = [this] {
    const Control control = directory_.control->Get();
    return MemberInfo{control.node_id, control.incarnation, advertised_, true};
  };
  deps.pull_options = [this] { return PullOptions(); };
  deps.step_down = [this](const std::string& reason, const std::string& message) {
    return failover_->StepDown(reason, message);
  };
  lifecycle_ = std::make_unique<PrimaryLifecycle>(std::move(deps));
}

void Node::MakePulling() {
  const auto own = [this] {
    const Control control = directory_.control->Get();
    OwnStanding standing{control.node_id, control.cluster_id, control.promised_term, "", {}};
    const Term last = control.history.empty() ? 0 : control.history.back().term;
    if (control.promised_term > last) standing.awaited = control.promised_candidate;
    for (const MemberInfo& member : control.members.members) {
      if (member.node_id != control.node_id) standing.member_addresses.push_back(member.address);
    }
    return standing;
  };
  pulling_ = std::make_unique<Pulling>(
      *this, deps_.executor,
      std::make_unique<FollowingUpstream>(config_.upstream, config_.replication_follow_primary, own, deps_.peers,
                                          deps_.make_upstream, deps_.logger),
      [this] { return PullOptions(); });
}

void Node::MakeFailover() {
  failover_ = std::make_unique<Failover>(FailoverDependencies{*this, *this, *lifecycle_, deps_.peers,
                                                              [this] { return PullOptions(); }, deps_.make_upstream,
                                                              [this] { return advertised_; }});
}

// Of a node that becomes, or is, a primary: its cluster does not change any more.
void Node::NameCluster() {
  if (primary_cluster_id_.empty()) primary_cluster_id_ = directory_.control->Get().cluster_id;
}

absl::Status Node::Start() {
  if (is_primary()) NameCluster();
  TOWLINE_RETURN_IF_ERROR(lifecycle_->Start());
  if (!is_primary()) pulling_->Start("");
  {
    MutexLock lock(&mutex_);
    started_ = true;
  }
  failover_->Start();
  ticker_ = deps_.executor.Start("ticker", [this] { return Tick(); });
  const NodeView view = View();
  deps_.logger.Log(LogLevel::kInfo, "node_started",
                   {{"role", is_primary() ? "primary" : "replica"},
                    {"cluster_id", view.cluster_id},
                    {"term", view.term},
                    {"history", FormatHistory(view.history)},
                    {"address", advertised_}});
  return absl::OkStatus();
}

ReplicaOptions Node::PullOptions() const {
  ReplicaOptions options;
  options.node_id = config_.node_id;
  options.advertised_address = advertised_;
  options.process_instance = process_instance_;
  options.file_form = FileForm();
  options.credit_bytes = config_.replication_credit_bytes;
  options.stall_timeout_micros = config_.replication_stall_timeout_micros;
  return options;
}

v1::PullStart Node::DescribeStart() {
  const std::shared_ptr<Generation> live = LiveGeneration();
  v1::PullStart start = MakePullStart(directory_.control->Get(), live.get(), PullOptions());
  if (live != nullptr) start.set_oldest_rewind_lsn(live->checkpoints().oldest());
  return start;
}

void Node::Stop() {
  {
    MutexLock lock(&mutex_);
    if (stopped_) return;
    stopped_ = true;
  }
  if (source_ == nullptr) return;  // Open failed: there is nothing to end, and nothing of ours to save
  if (ticker_) ticker_->Stop();
  source_->EndSessions(MakeError(absl::StatusCode::kUnavailable, "stopping", "the node is stopping", "reconnect"));
  failover_->Stop();
  lifecycle_->Stop();
  pulling_->Stop();
  if (fatal_.load()) return;  // what is on disk is the truth; save nothing on top of it
  absl::Status status = directory_.slots->SaveIfDirty();
  if (const std::shared_ptr<Generation> live = LiveGeneration(); live != nullptr) {
    const Lsn durable = live->spool().end().lsn;
    status.Update(live->Close());
    status.Update(directory_.control->Update(false, [&](Control& control) {
      if (control.generation == live->number() && control.watermark < durable) control.watermark = durable;
    }));
  }
  deps_.logger.Log(status.ok() ? LogLevel::kInfo : LogLevel::kError, "node_stopped", {{"status", status.ToString()}});
}

NodeView Node::View() {
  const Control control = directory_.control->Get();
  NodeView view;
  view.node_id = control.node_id;
  view.incarnation = control.incarnation;
  view.cluster_id = control.cluster_id;
  view.is_primary = is_primary();
  view.history = control.history;
  view.term = std::max(control.promised_term, control.history.empty() ? 0 : control.history.back().term);
  view.base = control.base;
  view.members = control.members;
  view.data_generation = control.generation;
  if (is_primary()) {
    view.primary_address = advertised_;
  } else if (const auto status = ReplicaStatus()) {
    view.primary_address = status->primary_address;
  }
  MutexLock lock(&mutex_);
  if (!is_primary()) view.upstream_path = upstream_path_;
  view.exact = live_ == nullptr || live_->applier().applied_lsn() >= control.exact_from.lsn;
  view.starting = !started_ || stopped_ || fatal_.load() || live_ == nullptr || rewinding_.load();
  return view;
}

std::shared_ptr<LogAndState> Node::Live() {
  MutexLock lock(&mutex_);
  return live_;
}

std::shared_ptr<Generation> Node::LiveGeneration() {
  MutexLock lock(&mutex_);
  return live_ == nullptr ? nullptr : live_->generation();
}

void Node::SwitchGeneration(std::shared_ptr<Generation> generation) {
  const uint64_t number = generation->number();
  const Lsn first = generation->spool().stats().first_lsn;
  const Lsn end = generation->spool().end().lsn;
  source_->EndSessions(
      MakeError(absl::StatusCode::kUnavailable, "generation_switched", "the node's data was replaced", "reconnect"));
  if (const absl::Status status = directory_.slots->SwitchDataGeneration(number, first, end); !status.ok())
    Fatal(status);
  MutexLock lock(&mutex_);
  live_ = MakeLive(std::move(generation));
}

std::shared_ptr<ServedGeneration> Node::MakeLive(std::shared_ptr<Generation> generation) const {
  std::optional<FileSnapshotPlace> files;
  const std::string form = FileForm();
  if (form.empty()) {
    // Of a process with another setting.
    RemoveAll(deps_.fs, SnapshotsDirectory(config_.data_dir, generation->number())).IgnoreError();
  } else {
    files.emplace(FileSnapshotPlace{deps_.fs, SnapshotsDirectory(config_.data_dir, generation->number()), form});
  }
  return std::make_shared<ServedGeneration>(std::move(generation), std::move(files));
}

std::string Node::FileForm() const { return config_.bootstrap_form == "rdb" ? "" : deps_.stores.file_form(); }

void Node::SetRewinding(bool rewinding) {
  rewinding_.store(rewinding);
  if (!rewinding) return;
  source_->EndSessions(MakeError(absl::StatusCode::kUnavailable, "rewinding",
                                 "the node gives up records that its upstream does not have", "reconnect"));
}

void Node::OnHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn) {
  if (is_primary()) return;  // it fetches lost records from a replica; nobody is above it
  const HeartbeatInfo heartbeat{sequence, durable_lsn, committed_lsn, deps_.clock.MonotonicMicros()};
  {
    MutexLock lock(&mutex_);
    heartbeats_.Add(heartbeat);
    if (live_ != nullptr) live_->generation()->checkpoints().SetCommonLsn(committed_lsn);
  }
  source_->ForwardHeartbeat(heartbeat);
}

void Node::OnSlotCopies(const slots::SlotCopies& copies) {
  if (!is_primary()) source_->ForwardSlots(copies);
}

void Node::OnUpstreamPath(const UpstreamPath& path) {
  {
    MutexLock lock(&mutex_);
    if (path == upstream_path_) return;
    upstream_path_ = path;
  }
  source_->OnPathChanged();
}

void Node::OnReplicaAttached(const MemberInfo& member, bool knows_members) {
  if (is_primary()) lifecycle_->OnAttached(member, knows_members);
}

void Node::OnReplicaAck(const ReplicaAck& ack) {
  if (role() != nullptr) role()->commit().OnAck(ack);
}

void Node::OnReplicaGone(const std::string& node_id, uint64_t session_id) {
  if (role() != nullptr) role()->commit().OnSessionEnd(node_id, session_id);
}

void Node::OnStaleSelf(Term judged, absl::string_view reason, absl::string_view message) {
  if (is_primary()) lifecycle_->OnStaleSelf(judged, reason, message);
}

absl::Status Node::Recover(const std::string& from) { return is_primary() ? lifecycle_->Recover(from) : NotPrimary(); }

absl::StatusOr<bool> Node::RequestBootstrap() {
  if (is_primary()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "not_replica",
                     absl::StrCat("node ", config_.node_id, " is the primary: it has nobody to load from"),
                     "name a replica; to load a file, use towctl snapshot load");
  }
  const std::optional<bool> asked = pulling_->RequestBootstrap();
  if (asked.has_value()) return *asked;
  return MakeError(absl::StatusCode::kUnavailable, "starting", "the node is starting", "retry");
}

absl::Status Node::RemoveMember(const std::string& node_id, bool force) {
  TOWLINE_RETURN_IF_ERROR(CheckTakesWrites());
  if (node_id == config_.node_id) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "member_self",
                     absl::StrCat(node_id, " is the primary itself"), "it stays a member as long as it is the primary");
  }
  for (const PeerStatus& peer : source_->Peers()) {
    if (force || peer.node_id != node_id || peer.state == "disconnected") continue;
    return MakeError(absl::StatusCode::kFailedPrecondition, "member_connected",
                     absl::StrCat(node_id, " is connected (", peer.state, "), and would join again"),
                     "stop it first, or use --force");
  }
  const MemberList members = View().members;
  const bool counts = std::any_of(members.members.begin(), members.members.end(), [&node_id](const MemberInfo& each) {
    return each.node_id == node_id && each.counting;
  });
  if (const uint32_t counting = role()->commit().stats().counting_members;
      counts && !force && members.min_replicas >= counting) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "min_replicas_unreachable",
                     absl::StrCat("without ", node_id, " there are ", counting - 1,
                                  " counting members besides the primary; min_replicas is ", members.min_replicas),
                     "lower it first with towctl member min-replicas, or use --force: no write is taken then");
  }
  return lifecycle_->membership().Remove(node_id, kChangeMembersMicros);
}

absl::StatusOr<Lsn> Node::SetMinReplicas(uint32_t min_replicas, bool* unchanged) {
  TOWLINE_RETURN_IF_ERROR(CheckTakesWrites());
  *unchanged = View().members.min_replicas == min_replicas;
  if (*unchanged) return 0;
  const uint32_t counting = role()->commit().stats().counting_members;
  if (min_replicas > counting) {
    return MakeError(absl::StatusCode::kInvalidArgument, "too_few_replicas",
                     absl::StrCat("min_replicas ", min_replicas, " is more than the ", counting,
                                  " counting members besides the primary"),
                     "add replicas first; look at towctl member list");
  }
  return lifecycle_->membership().SetMinReplicas(min_replicas, kChangeMembersMicros);
}

StepResult Node::Tick() {
  if (const absl::Status status = source_->Tick(); !status.ok()) {
    Fatal(status);
    return StepResult::WaitForWake();
  }
  SaveWatermarkWhenIdle();
  if (is_primary()) {
    TellCommonLsn();
    if (const absl::Status status = lifecycle_->Tick(); !status.ok()) {
      Fatal(status);
      return StepResult::WaitForWake();
    }
  }
  return StepResult::WaitFor(source_->TickMicros());
}

void Node::TellCommonLsn() {
  const int64_t now = deps_.clock.MonotonicMicros();
  const std::shared_ptr<Generation> live = LiveGeneration();
  if (live == nullptr || now < next_common_micros_) return;
  next_common_micros_ = now + kCommonLsnMicros;
  live->checkpoints().SetCommonLsn(CommonLsn(source_->Peers(), directory_.control->Get().members));
}

void Node::SaveWatermarkWhenIdle() {
  const auto live = Live();
  if (live == nullptr) return;
  const Lsn durable = live->spool().end().lsn;
  const int64_t now = deps_.clock.MonotonicMicros();
  if (durable != watermark_candidate_) {
    watermark_candidate_ = durable;
    watermark_since_micros_ = now;
    return;
  }
  if (watermark_since_micros_ < 0 || now - watermark_since_micros_ < kWatermarkIdleMicros) return;
  watermark_since_micros_ = -1;  // saved: nothing to do until the log grows
  const Control control = directory_.control->Get();
  if (control.generation != live->number() || control.watermark >= durable) return;
  const absl::Status saved = directory_.control->Update(false, [&](Control& c) {
    if (c.generation == live->number() && c.watermark < durable) c.watermark = durable;
  });
  if (!saved.ok()) Fatal(saved);
}

void Node::Fatal(const absl::Status& status) {
  if (fatal_.exchange(true)) return;
  deps_.logger.Log(LogLevel::kError, "fatal", {{"status", status.ToString()}});
  deps_.on_fatal(status);
}

}  // namespace towline
