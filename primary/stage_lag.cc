#include "primary/stage_lag.h"

#include <algorithm>
#include <utility>

namespace towline {

std::vector<StageLag> LagByStage(const StageLsns& lsns, const LagReference& reference) {
  const Lsn received = std::max(lsns.received, lsns.flushed);
  const std::pair<const char*, Lsn> stages[] = {{"sent", std::max(lsns.sent, received)},
                                                {"received", received},
                                                {"flushed", lsns.flushed},
                                                {"applied", lsns.applied}};
  std::vector<StageLag> lags;
  for (const auto& [stage, lsn] : stages) {
    StageLag lag;
    lag.stage = stage;
    if (lsn < reference.durable_lsn) {
      lag.records = reference.durable_lsn - lsn;
      lag.bytes = reference.bytes_behind(lsn);
    }
    if (reference.seconds) lag.seconds = reference.seconds(lsn);
    lags.push_back(lag);
  }
  return lags;
}

}  // namespace towline
