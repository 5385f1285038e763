#include "server/node.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/history.h"
#include "primary/write_intake.h"
#include "towline/v1/change.pb.h"

namespace towline {
namespace {

constexpr int64_t kTickMicros = 50'000;
constexpr int64_t kWatermarkIdleMicros = 1'000'000;

v1::Members ToProto(const MemberList& list) {
  v1::Members out;
  out.set_min_replicas(list.min_replicas);
  for (const MemberInfo& member : list.members) {
    v1::Member* m = out.add_members();
    m->set_node_id(member.node_id);
    m->set_incarnation(member.incarnation);
    m->set_address(member.address);
    m->set_counting(member.counting);
  }
  return out;
}

// `list` with `member` put in at its place.
void Upsert(const MemberInfo& member, MemberList* list) {
  auto it = list->members.begin();
  while (it != list->members.end() && it->node_id < member.node_id) ++it;
  if (it != list->members.end() && it->node_id == member.node_id) {
    *it = member;
  } else {
    list->members.insert(it, member);
  }
}

}  // namespace

// The live generation as the serving side sees it.
class Node::LiveAdapter final : public LogAndState {
 public:
  explicit LiveAdapter(std::shared_ptr<Generation> generation) : generation_(std::move(generation)) {}
  uint64_t number() const override { return generation_->number(); }
  wal::Spool& spool() override { return generation_->spool(); }
  StateStore& state() override { return generation_->state(); }
  Applier& applier() override { return generation_->applier(); }
  const std::shared_ptr<Generation>& generation() const { return generation_; }

 private:
  const std::shared_ptr<Generation> generation_;
};

class Node::MembersJob final : public WriteJob {
 public:
  MembersJob(Node* node, MemberList list) : node_(node), list_(std::move(list)) {
    v1::Change change;
    *change.mutable_members() = ToProto(list_);
    WriteRecord& record = records.emplace_back();
    record.type = wal::RecordType::kMembers;
    record.payload = change.SerializeAsString();
    record.payload_crc = Crc32c(record.payload);
  }

  void OnDone(std::unique_ptr<WriteJob> self) override {
    node_->OnMembersWritten(list_, records[0].outcome.status.ok());
    self.reset();
  }

 private:
  Node* const node_;  // stops its sequencer, which answers every job, before it goes away
  const MemberList list_;
};

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
}

absl::StatusOr<std::unique_ptr<Node>> Node::Open(const NodeConfig& config, const NodeDependencies& deps) {
  std::unique_ptr<Node> node(new Node(config, deps));
  TOWLINE_ASSIGN_OR_RETURN(node->directory_, OpenDataDirectory(config, node->environment_));
  node->role_ = node->directory_.control->Get().role;
  if (node->role_ != config.role) {
    deps.logger.Log(LogLevel::kWarning, "role_from_control",
                    {{"role", node->is_primary() ? "primary" : "replica"},
                     {"reason", "the data directory decides the role; the command line only for an empty one"}});
    if (node->role_ == NodeRole::kReplica && config.upstream.empty()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "invalid_config",
                       absl::StrCat(config.data_dir, " belongs to a replica, and no --upstream is given"),
                       "start it as `towlined replica` with --upstream");
    }
  }
  if (node->directory_.live != nullptr) {
    MutexLock lock(&node->mutex_);
    node->live_ = std::make_shared<LiveAdapter>(node->directory_.live);
  }
  node->directory_.live.reset();
  SourceOptions options;
  options.planner.auto_create_slots = config.slots_auto_create;
  options.planner.replay_max_bytes = config.bootstrap_replay_max_bytes;
  options.heartbeat_micros = config.replication_heartbeat_micros;
  options.stall_timeout_micros = config.replication_stall_timeout_micros;
  options.slots_persist_micros = config.slots_persist_interval_micros;
  options.wal_keep_bytes = config.wal_keep_bytes;
  options.limits_check_bytes = config.wal_segment_bytes / 4;
  options.disk_warn_ratio = config.disk_warn_ratio;
  options.disk_used_ratio = [self = node.get()] {
    const absl::StatusOr<SpaceInfo> space = self->Space();
    return space.ok() ? space->used_ratio() : 0;
  };
  node->source_ = NewReplicationSource(*node, *node->directory_.slots, deps.clock, deps.rng, deps.logger, options);
  return node;
}

Node::~Node() { Stop(); }

absl::Status Node::Start() {
  if (is_primary()) {
    TOWLINE_RETURN_IF_ERROR(StartPrimary());
  } else {
    StartReplica();
  }
  {
    MutexLock lock(&mutex_);
    started_ = true;
  }
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

absl::Status Node::StartPrimary() {
  const Control control = directory_.control->Get();
  const HistoryEntry& current = control.history.back();
  primary_cluster_id_ = control.cluster_id;
  const std::shared_ptr<Generation> live = LiveGeneration();
  if (live->spool().end().lsn < current.start_lsn) {
    v1::Change change;
    v1::TermStart* start = change.mutable_term_start();
    start->set_term(current.term);
    start->set_term_id(current.term_id);
    start->set_cluster_id(control.cluster_id);
    start->set_node_id(control.node_id);
    const std::string payload = change.SerializeAsString();
    wal::GroupBuilder builder(live->spool().end());
    builder.Add(wal::RecordType::kTermStart, current.term, deps_.clock.WallMicros(), payload, Crc32c(payload));
    TOWLINE_RETURN_IF_ERROR(live->AppendAndApply(builder.Finish(), control.history, nullptr));
  }
  SequencerOptions options;
  options.queue_bytes_max = config_.wal_queue_bytes;
  sink_ = std::make_unique<PrimarySink>(deps_.fs, config_.data_dir, live, control.history);
  sequencer_ = std::make_unique<Sequencer>(*sink_, live->state(), deps_.executor, deps_.clock, current.term,
                                           current.term_id, options, [this](absl::Status status) { Fatal(status); });
  sequencer_view_.store(sequencer_.get(), std::memory_order_release);
  expirer_ = std::make_unique<Expirer>(*sequencer_, live->state(), deps_.executor, deps_.clock, deps_.logger,
                                       config_.expiry_interval_micros);
  return absl::OkStatus();
}

void Node::StartReplica() {
  upstream_ = deps_.make_upstream(config_.upstream);
  ReplicaOptions options;
  options.node_id = config_.node_id;
  options.advertised_address = advertised_;
  options.process_instance = process_instance_;
  options.credit_bytes = config_.replication_credit_bytes;
  options.stall_timeout_micros = config_.replication_stall_timeout_micros;
  controller_ = NewReplicaController(*this, *upstream_, options);
  controller_loop_ = deps_.executor.Start(
      "puller", [this] { return controller_->Step(); }, LoopPriority::kBatch);
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
  if (expirer_) expirer_->Stop();
  if (sequencer_) sequencer_->Stop();
  if (controller_) controller_->Shutdown();
  if (controller_loop_) controller_loop_->Stop();
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
  view.term = control.history.empty() ? 0 : control.history.back().term;
  view.base = control.base;
  view.members = control.members;
  view.data_generation = control.generation;
  if (is_primary()) {
    view.primary_address = advertised_;
  } else if (const auto status = ReplicaStatus()) {
    view.primary_address = status->primary_address;
  }
  MutexLock lock(&mutex_);
  view.exact = live_ == nullptr || live_->applier().applied_lsn() >= control.exact_from.lsn;
  view.starting = !started_ || stopped_ || fatal_.load() || live_ == nullptr;
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
  const Lsn end = generation->spool().end().lsn;
  source_->EndSessions(
      MakeError(absl::StatusCode::kUnavailable, "generation_switched", "the node has loaded a snapshot", "reconnect"));
  if (const absl::Status status = directory_.slots->SwitchDataGeneration(number, end); !status.ok()) Fatal(status);
  MutexLock lock(&mutex_);
  live_ = std::make_shared<LiveAdapter>(std::move(generation));
}

void Node::OnHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn) {
  const HeartbeatInfo heartbeat{sequence, durable_lsn, committed_lsn, deps_.clock.MonotonicMicros()};
  {
    MutexLock lock(&mutex_);
    heartbeats_.Add(heartbeat);
  }
  source_->ForwardHeartbeat(heartbeat);
}

std::optional<double> Node::StalenessSeconds() {
  const auto live = Live();
  if (live == nullptr) return std::nullopt;
  const int64_t now = deps_.clock.MonotonicMicros();
  MutexLock lock(&mutex_);
  if (heartbeats_.newest().sequence == 0) return std::nullopt;
  const double silence = static_cast<double>(now - heartbeats_.newest().made_micros) / 1e6;
  return std::max(silence, heartbeats_.LagSeconds(live->applier().applied_lsn(), now));
}

void Node::OnReplicaAttached(const MemberInfo& member) {
  if (!is_primary()) return;
  MutexLock lock(&mutex_);
  attached_[member.node_id] = member;
}

void Node::OnStaleSelf(absl::string_view reason, absl::string_view message) {
  deps_.logger.Log(LogLevel::kError, "primary_stale", {{"reason", reason}, {"message", message}});
  MutexLock lock(&mutex_);
  stale_reason_ = std::string(reason);
}

bool Node::DiskFull() {
  const auto live = Live();
  if (live == nullptr) return false;
  if (live->spool().stats().disk_full || live->applier().waits_for_disk()) return true;
  return sequencer() != nullptr && sink_->refused();
}

absl::Status Node::CheckTakesWrites() {
  TOWLINE_RETURN_IF_ERROR(CheckWritable());
  if (!sink_->Stuck()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "disk_full",
                   "the store finds no space, and applies nothing until it does",
                   "free space on the disk of the data directory, then retry");
}

absl::Status Node::CheckWritable() {
  if (!is_primary()) {
    ErrorInfo info;
    info.reason = "not_primary";
    const std::string address = View().primary_address;
    info.message = absl::StrCat("node ", config_.node_id, " is a replica");
    info.next_action = address.empty() ? absl::StrCat("write to the primary; its upstream is ", config_.upstream)
                                       : absl::StrCat("write to the primary at ", address);
    info.metadata["primary_address"] = address.empty() ? config_.upstream : address;
    return MakeError(absl::StatusCode::kFailedPrecondition, std::move(info));
  }
  MutexLock lock(&mutex_);
  if (!stale_reason_.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, stale_reason_,
                     absl::StrCat("node ", config_.node_id, " has stopped taking writes: ", stale_reason_),
                     "an operator must decide which node goes on");
  }
  if (!started_ || stopped_ || fatal_.load()) {
    return MakeError(absl::StatusCode::kUnavailable, "stopping", "the node takes no writes now", "retry");
  }
  return absl::OkStatus();
}

absl::Status Node::CheckReadable() {
  const NodeView view = View();
  if (Live() == nullptr) {
    return MakeError(absl::StatusCode::kUnavailable, "no_data", "the node has no data yet", "read from another node");
  }
  if (!view.exact) {
    return MakeError(absl::StatusCode::kUnavailable, "not_exact", "the node's state is not exact yet",
                     "read from another node");
  }
  return absl::OkStatus();
}

std::optional<ReplicaStatusView> Node::ReplicaStatus() {
  {
    // The controller is made before this is set, and stays.
    MutexLock lock(&mutex_);
    if (is_primary() || !started_) return std::nullopt;
  }
  return controller_->Status();
}

Lsn Node::CommittedLsn() {
  const auto live = Live();
  const Lsn durable = live == nullptr ? 0 : live->spool().end().lsn;
  if (is_primary()) return durable;
  const auto status = ReplicaStatus();
  return status ? std::min(durable, status->upstream_committed_lsn) : 0;
}

std::string Node::State(std::string* reason) {
  reason->clear();
  {
    MutexLock lock(&mutex_);
    if (fatal_.load()) {
      *reason = "io_error";
      return "halted";
    }
    if (!started_) return "starting";
    if (!stale_reason_.empty()) {
      *reason = stale_reason_;
      return stale_reason_ == "replica_ahead" ? "recovery_required" : "read_only";
    }
  }
  const auto live = Live();
  const bool damaged = live != nullptr && !live->spool().stats().damaged.empty();
  if (is_primary()) {
    if (DiskFull()) {
      *reason = "disk_full";
    } else if (damaged) {
      *reason = "wal_damaged";
    }
    return "writable";
  }
  const ReplicaStatusView status = controller_->Status();
  *reason = status.halt_reason;
  if (reason->empty() && damaged) *reason = "wal_damaged";
  return status.state;
}

StepResult Node::Tick() {
  if (const absl::Status status = source_->Tick(); !status.ok()) {
    Fatal(status);
    return StepResult::WaitForWake();
  }
  SaveWatermarkWhenIdle();
  if (is_primary()) {
    SubmitMembers();
    sink_->LookForSpace();
  }
  return StepResult::WaitFor(kTickMicros);
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

void Node::SubmitMembers() {
  MemberList list = directory_.control->Get().members;
  {
    MutexLock lock(&mutex_);
    if (attached_.empty() || members_in_flight_) return;
    const MemberList before = list;
    const Control control = directory_.control->Get();
    Upsert({control.node_id, control.incarnation, advertised_, true}, &list);
    for (const auto& [id, member] : attached_) Upsert(member, &list);
    attached_.clear();
    if (list == before) return;
    members_in_flight_ = true;
  }
  std::unique_ptr<WriteJob> job = std::make_unique<MembersJob>(this, list);
  if (!sequencer_->Submit(&job).ok()) OnMembersWritten(list, false);
}

void Node::OnMembersWritten(const MemberList& list, bool written) {
  if (written) {
    const absl::Status saved = directory_.control->Update(true, [&](Control& control) { control.members = list; });
    if (!saved.ok()) Fatal(saved);
  }
  MutexLock lock(&mutex_);
  members_in_flight_ = false;
  if (written) return;
  for (const MemberInfo& member : list.members) {
    if (member.node_id != config_.node_id) attached_.emplace(member.node_id, member);  // try again
  }
}

void Node::Fatal(const absl::Status& status) {
  if (fatal_.exchange(true)) return;
  deps_.logger.Log(LogLevel::kError, "fatal", {{"status", status.ToString()}});
  deps_.on_fatal(status);
}

}  // namespace towline
