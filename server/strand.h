// Runs a function on a pool, one call at a time, again for every signal that came meanwhile.

#ifndef TOWLINE_SERVER_STRAND_H_
#define TOWLINE_SERVER_STRAND_H_

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "common/work_pool.h"

namespace towline {

// Threads: Signal and TryRunHere from any thread, Signal also under locks. `run` is called on the pool, whose queue
// must not be bounded.
class Strand : public std::enable_shared_from_this<Strand> {
 public:
  Strand(WorkPool& pool, std::function<void()> run) : pool_(pool), run_(std::move(run)) {}

  // Makes `run` be called after now. Many signals may share one call.
  void Signal() {
    if (pending_.fetch_add(1, std::memory_order_acq_rel) != 0) return;  // the running task will see it
    Post();
  }

  // Calls `fn` on the calling thread as if it were `run`, unless a call runs or is due. What signals meanwhile is
  // answered on the pool. False: not called.
  template <typename Fn>
  bool TryRunHere(Fn&& fn) {
    uint64_t idle = 0;
    if (!pending_.compare_exchange_strong(idle, 1, std::memory_order_acq_rel)) return false;
    fn();
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) != 1) Post();
    return true;
  }

 private:
  void Post() {
    auto self = shared_from_this();
    // Signals may come under the caller's locks, so nothing runs here. Only a stopped pool refuses, and then all is
    // over.
    (void)pool_.Submit([self] { self->RunOnce(); });
  }

  void RunOnce() {
    const uint64_t seen = pending_.load(std::memory_order_acquire);
    run_();
    if (pending_.fetch_sub(seen, std::memory_order_acq_rel) != seen) Post();
  }

  WorkPool& pool_;
  const std::function<void()> run_;
  std::atomic<uint64_t> pending_{0};
};

}  // namespace towline

#endif  // TOWLINE_SERVER_STRAND_H_
