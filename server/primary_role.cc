#include "server/primary_role.h"

#include <algorithm>
#include <string>

#include "common/checksum.h"
#include "common/error.h"
#include "server/durability.h"
#include "towline/v1/change.pb.h"

namespace towline {
namespace {

SequencerOptions OptionsOf(const NodeConfig& config, Standstill* standstill) {
  SequencerOptions options;
  options.standstill = standstill;
  options.queue_bytes_max = config.wal_queue_bytes;
  return options;
}

FlowOptions FlowOptionsOf(const NodeConfig& config) {
  FlowOptions options;
  options.max_lag_bytes = config.flow_max_lag_bytes;
  options.refuse_after_micros = config.flow_refuse_after_micros;
  options.queue_bytes_max = config.wal_queue_bytes;
  return options;
}

absl::Status WriteTermStart(Clock& clock, const Control& control, Generation& live) {
  const HistoryEntry& current = control.history.back();
  v1::Change change;
  v1::TermStart* start = change.mutable_term_start();
  start->set_term(current.term);
  start->set_term_id(current.term_id);
  start->set_cluster_id(control.cluster_id);
  start->set_node_id(control.node_id);
  const std::string payload = change.SerializeAsString();
  wal::GroupBuilder builder(live.spool().end());
  builder.Add(wal::RecordType::kTermStart, current.term, clock.WallMicros(), payload, Crc32c(payload));
  return live.AppendAndApply(builder.Finish(), control.history, nullptr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrimaryRole>> PrimaryRole::Open(const GenerationEnvironment& env,
                                                               const NodeConfig& config, const Control& control,
                                                               std::shared_ptr<Generation> live,
                                                               Standstill* standstill) {
  if (live->spool().end().lsn < control.history.back().start_lsn) {
    TOWLINE_RETURN_IF_ERROR(WriteTermStart(env.clock, control, *live));
  }
  return std::unique_ptr<PrimaryRole>(new PrimaryRole(env, config, control, live, standstill));
}

PrimaryRole::PrimaryRole(const GenerationEnvironment& env, const NodeConfig& config, const Control& control,
                         const std::shared_ptr<Generation>& live, Standstill* standstill)
    : live_(live),
      sink_(env.fs, config.data_dir, live, control.history),
      commit_(env.clock, env.logger, control.node_id, control.history.back().term, DefaultLevel(config),
              control.members, live->spool().end().lsn),
      flow_(env.clock, env.logger, FlowOptionsOf(config)),
      sequencer_(sink_, live->state(), env.executor, env.clock, control.history.back().term,
                 control.history.back().term_id, OptionsOf(config, standstill), env.on_fatal),
      expirer_(sequencer_, live->state(), env.executor, env.clock, env.logger, config.expiry_interval_micros) {}

void PrimaryRole::Pause(const absl::Status& status) { sequencer_.Pause(status); }

void PrimaryRole::Unpause() { sequencer_.Unpause(); }

bool PrimaryRole::drained() const { return sequencer_.idle() && commit_.stats().waiters == 0; }

void PrimaryRole::Hold() {
  sequencer_.Hold();
  commit_.Hold();
}

void PrimaryRole::Release() {
  sequencer_.Release();
  commit_.Release();
}

void PrimaryRole::Close(const absl::Status& status) {
  flow_.Close();
  sequencer_.Close(status);
  commit_.Close(status);
  expirer_.Stop();
}

void PrimaryRole::Stop() {
  flow_.Close();
  expirer_.Stop();
  sequencer_.Stop();
  commit_.Close(MakeError(absl::StatusCode::kUnavailable, "stopping",
                          "this primary does not wait for replicas any more", "retry with the same request id"));
}

void PrimaryRole::Tick() {
  commit_.Tick();
  if (flow_.off()) return;
  // What fewer hold than the cluster's level asks for, or than one, is what a loss of this node would cost.
  const Lsn held = commit_.HeldBy(std::max<uint32_t>(1, commit_.cluster_replicas()));
  const wal::Spool& spool = live_->spool();
  FlowView view;
  view.head_bytes = spool.stats().appended_bytes;
  if (held != 0) view.lag_bytes = spool.BytesBehind(held);
  flow_.Tick(view);
}

}  // namespace towline
