#include "server/primary_role.h"

#include <string>

#include "common/checksum.h"
#include "common/error.h"
#include "towline/v1/change.pb.h"

namespace towline {
namespace {

SequencerOptions OptionsOf(const NodeConfig& config, Standstill* standstill) {
  SequencerOptions options;
  options.standstill = standstill;
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
    : sink_(env.fs, config.data_dir, live, control.history),
      sequencer_(sink_, live->state(), env.executor, env.clock, control.history.back().term,
                 control.history.back().term_id, OptionsOf(config, standstill), env.on_fatal),
      expirer_(sequencer_, live->state(), env.executor, env.clock, env.logger, config.expiry_interval_micros) {}

void PrimaryRole::Pause(const absl::Status& status) { sequencer_.Pause(status); }

void PrimaryRole::Unpause() { sequencer_.Unpause(); }

void PrimaryRole::Hold() { sequencer_.Hold(); }

void PrimaryRole::Release() { sequencer_.Release(); }

void PrimaryRole::Close(const absl::Status& status) {
  sequencer_.Close(status);
  expirer_.Stop();
}

void PrimaryRole::Stop() {
  expirer_.Stop();
  sequencer_.Stop();
}

}  // namespace towline
