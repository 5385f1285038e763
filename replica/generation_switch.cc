#include "replica/generation_switch.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/history.h"

namespace towline {
namespace {

void Fill(const NewGeneration& next, Lsn watermark, Control* control) {
  control->cluster_id = next.cluster_id;
  control->history = next.history;
  control->generation = next.number;
  control->base = next.base;
  control->exact_from = next.exact_from;
  control->watermark = watermark;
  if (next.members.has_value()) control->members = *next.members;
}

// A new log behind a state that is exactly at its base.
absl::StatusOr<std::shared_ptr<Generation>> OpenNew(ReplicaHost& host, const NewGeneration& next) {
  Control control = host.control().Get();
  Fill(next, next.base.lsn, &control);
  TOWLINE_ASSIGN_OR_RETURN(std::shared_ptr<Generation> opened,
                           Generation::Open(host.environment(), control, {}, 0, nullptr));
  const Position state = opened->state().applied();
  if (state == next.base) return opened;
  return MakeError(
      absl::StatusCode::kDataLoss, "state_mismatch",
      absl::StrCat("the new state stands at LSN ", state.lsn, ", the snapshot's position is ", next.base.lsn));
}

}  // namespace

StageResult SwitchToGeneration(ReplicaHost& host, const NewGeneration& next) {
  const GenerationEnvironment& env = host.environment();
  const uint64_t old_number = host.control().Get().generation;
  std::shared_ptr<Generation> opened = next.opened;
  if (opened == nullptr) {
    absl::StatusOr<std::shared_ptr<Generation>> made = OpenNew(host, next);
    if (absl::IsResourceExhausted(made.status())) return StageResult::Halt(made.status());
    if (!made.ok()) return StageResult::Reconnect(made.status());
    opened = *std::move(made);
  }

  const bool both = !Failpoint("replica_switch_once");
  absl::Status saved =
      host.control().Update(both, [&](Control& present) { Fill(next, opened->spool().end().lsn, &present); });
  if (absl::IsInvalidArgument(saved)) return StageResult::Reconnect(std::move(saved));  // nothing was written
  if (!saved.ok()) return StageResult::Fatal(Annotate(saved, "writing control for a new generation"));
  env.logger.Log(LogLevel::kInfo, "generation_switched",
                 {{"generation", next.number},
                  {"old_generation", old_number},
                  {"cluster_id", next.cluster_id},
                  {"base_lsn", next.base.lsn},
                  {"history", FormatHistory(next.history)}});
  host.SwitchGeneration(std::move(opened));
  return StageResult::Done();
}

}  // namespace towline
