// Deletes expired keys on the primary: finds them in the expiry index and has the sequencer log plain deletes.

#ifndef TOWLINE_PRIMARY_EXPIRER_H_
#define TOWLINE_PRIMARY_EXPIRER_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/clock.h"
#include "common/executor.h"
#include "common/logger.h"
#include "primary/sequencer.h"
#include "store/state_store.h"

namespace towline {

// Threads: deleted_total from any thread. The references must outlive it.
class Expirer {
 public:
  // Looks for due keys every `interval_micros`, at once again while there are many.
  Expirer(Sequencer& sequencer, StateStore& state, Executor& executor, Clock& clock, Logger& logger,
          int64_t interval_micros);
  ~Expirer();

  // Ends the loop; a submitted job may still be answered afterwards. Idempotent.
  void Stop();

  uint64_t deleted_total() const { return shared_->deleted_total.load(std::memory_order_relaxed); }

 private:
  class Job;
  // Outlives the expirer while a job is on its way.
  struct Shared {
    std::atomic<bool> in_flight{false};
    std::atomic<Lsn> last_lsn{0};  // of its last delete
    std::atomic<uint64_t> deleted_total{0};
  };

  StepResult Step();

  Sequencer& sequencer_;
  StateStore& state_;
  Clock& clock_;
  Logger& logger_;
  const int64_t interval_micros_;
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::unique_ptr<Loop> loop_;  // last
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_EXPIRER_H_
