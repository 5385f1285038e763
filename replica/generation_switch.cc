#include "replica/generation_switch.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "common/history.h"

namespace towline {
namespace {

void Fill(const NewGeneration& next, Control* control) {
  control->cluster_id = next.cluster_id;
  control->history = next.history;
  control->generation = next.number;
  control->base = next.base;
  control->exact_from = next.base;
  control->watermark = next.base.lsn;
}

}  // namespace

StageResult SwitchToGeneration(ReplicaHost& host, const NewGeneration& next) {
  const GenerationEnvironment& env = host.environment();
  Control control = host.control().Get();
  const uint64_t old_number = control.generation;
  Fill(next, &control);
  absl::StatusOr<std::unique_ptr<Generation>> opened = Generation::Open(env, control, {}, 0, nullptr);
  if (!opened.ok()) {
    return absl::IsResourceExhausted(opened.status()) ? StageResult::Halt(std::move(opened).status())
                                                      : StageResult::Reconnect(std::move(opened).status());
  }
  const Position state = (*opened)->state().applied();
  if (state != next.base) {
    return StageResult::Reconnect(MakeError(
        absl::StatusCode::kDataLoss, "state_mismatch",
        absl::StrCat("the new state stands at LSN ", state.lsn, ", the snapshot's position is ", next.base.lsn)));
  }

  const bool both = !Failpoint("replica_switch_once");
  absl::Status saved = host.control().Update(both, [&](Control& present) { Fill(next, &present); });
  if (absl::IsInvalidArgument(saved)) return StageResult::Reconnect(std::move(saved));  // nothing was written
  if (!saved.ok()) return StageResult::Fatal(Annotate(saved, "writing control for a new generation"));
  env.logger.Log(LogLevel::kInfo, "generation_switched",
                 {{"generation", next.number},
                  {"old_generation", old_number},
                  {"cluster_id", next.cluster_id},
                  {"base_lsn", next.base.lsn},
                  {"history", FormatHistory(next.history)}});
  host.SwitchGeneration(std::shared_ptr<Generation>(*std::move(opened)));
  return StageResult::Done();
}

}  // namespace towline
