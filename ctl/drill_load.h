// The writers of a drill: each writes one key after the other, repeats until it has an answer, and records all of it.

#ifndef TOWLINE_CTL_DRILL_LOAD_H_
#define TOWLINE_CTL_DRILL_LOAD_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "ctl/drill_history.h"
#include "ctl/environment.h"

namespace towline::ctl {

struct DrillLoadOptions {
  std::string id;                      // of the drill; begins the keys and the client ids
  std::vector<std::string> endpoints;  // of all nodes; writers begin at the first one
  std::string local_endpoint;          // where writers of level local begin; empty = at the first one, too
  int replicated_writers = 2;
  int local_writers = 1;
  uint64_t value_bytes = 100;
  int64_t pace_us = 2'000;       // pause behind an answer
  int64_t attempt_us = 500'000;  // longest wait for one answer
};

// What a drill's keys begin with.
std::string DrillPrefix(const std::string& id);

// Threads: one thread starts and stops; the other methods from any thread.
class DrillLoad {
 public:
  explicit DrillLoad(const DrillLoadOptions& options) : options_(options) {}
  ~DrillLoad();  // stops
  DrillLoad(const DrillLoad&) = delete;
  DrillLoad& operator=(const DrillLoad&) = delete;

  void Start();
  // Writes nothing new and waits until what is under way is answered, at most `grace_us`.
  void Stop(int64_t grace_us) TOWLINE_EXCLUDES(mutex_);

  // Waits until `done` holds for the writes so far; false after `timeout_us` or an interrupt.
  bool WaitFor(const Interrupt& interrupt, int64_t timeout_us,
               const std::function<bool(const std::vector<DrillWrite>&)>& done) TOWLINE_EXCLUDES(mutex_);

  // The newest answered write at level replicas.
  std::optional<DrillWrite> NewestAnswered() const TOWLINE_EXCLUDES(mutex_);

  // Requires a stopped load.
  std::vector<DrillWrite> TakeWrites() TOWLINE_EXCLUDES(mutex_);

 private:
  void Write(DrillLevel level, int writer) TOWLINE_EXCLUDES(mutex_);
  bool stopping() const TOWLINE_EXCLUDES(mutex_);

  const DrillLoadOptions options_;
  std::vector<std::thread> threads_;
  mutable Mutex mutex_;
  CondVar changed_;  // a write has an answer or has failed
  CondVar stopped_;
  bool stopping_ TOWLINE_GUARDED_BY(mutex_) = false;
  int64_t give_up_us_ TOWLINE_GUARDED_BY(mutex_) = INT64_MAX;
  std::vector<DrillWrite> writes_ TOWLINE_GUARDED_BY(mutex_);
  std::optional<size_t> newest_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_LOAD_H_
