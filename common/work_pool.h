// A few threads that run short tasks in the order in which they arrive.
//
// For work that may touch the disk and so must not run on an RPC thread: reads, and filling pull streams.

#ifndef TOWLINE_COMMON_WORK_POOL_H_
#define TOWLINE_COMMON_WORK_POOL_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "common/executor.h"

namespace towline {

// Threads: all methods from any thread; Stop and the destructor not from inside a task.
class WorkPool {
 public:
  virtual ~WorkPool() = default;

  // Runs `task` later. Returns false, and drops it, if `queue_max` tasks wait already or the pool is stopped.
  virtual bool Submit(std::function<void()> task) = 0;

  // Runs what is queued, then ends the threads. Idempotent.
  virtual void Stop() = 0;
};

std::unique_ptr<WorkPool> NewThreadWorkPool(std::string name, int threads, size_t queue_max,
                                            LoopPriority priority = LoopPriority::kNormal);

}  // namespace towline

#endif  // TOWLINE_COMMON_WORK_POOL_H_
