// Loops: the writer, the applier, pullers and timers are Step() functions that an executor calls.
//
// In production every loop has a thread of its own; in simulation one thread steps all of them in an order that a seed
// decides.

#ifndef TOWLINE_COMMON_EXECUTOR_H_
#define TOWLINE_COMMON_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace towline {

// What a step wants next.
struct StepResult {
  bool again = false;        // call at once again
  int64_t wait_micros = -1;  // else: call after this time or a Wake(), whichever is first; -1 = only after a Wake()

  static StepResult Again() { return {true, 0}; }
  static StepResult WaitForWake() { return {false, -1}; }
  static StepResult WaitFor(int64_t micros) { return {false, micros}; }
};

// A running loop. The destructor stops it.
// Threads: Wake from any thread, also from inside the step; Stop and the destructor never from inside the step.
class Loop {
 public:
  virtual ~Loop() = default;

  // Makes the next step happen soon. Wakes that arrive during a step are not lost: another step follows.
  virtual void Wake() = 0;

  // After it returns no step runs or will run. Idempotent.
  virtual void Stop() = 0;
};

// How a loop shares the processors with others.
enum class LoopPriority {
  kNormal,
  // Work in small pieces that a device waits for: it gets a processor soon, for a short turn (sched_setattr(2); without
  // effect before Linux 6.12).
  kPrompt,
  // Work that nobody waits for by the microsecond: its wake-ups do not interrupt threads that run (SCHED_BATCH, see
  // sched(7)), so on a small machine it works in fewer, larger pieces.
  kBatch,
  // Work that gives way to all others of this machine (SCHED_BATCH, nice 10). A thread cannot take this back.
  kBackground,
};

// Gives the calling thread a priority. Where that is not allowed, it is only less polite, or less prompt.
void SetThreadPriority(LoopPriority priority);

// Threads: Start may be called from any thread. Must outlive its loops.
class Executor {
 public:
  virtual ~Executor() = default;

  // Starts calling `step`, first call soon. Never two calls of one loop at a time. `name` (at most 15 bytes shown)
  // names the thread.
  virtual std::unique_ptr<Loop> Start(std::string name, std::function<StepResult()> step, LoopPriority priority) = 0;
  std::unique_ptr<Loop> Start(std::string name, std::function<StepResult()> step) {
    return Start(std::move(name), std::move(step), LoopPriority::kNormal);
  }
};

// A thread per loop.
std::unique_ptr<Executor> NewThreadExecutor();

}  // namespace towline

#endif  // TOWLINE_COMMON_EXECUTOR_H_
