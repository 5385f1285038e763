// Follows the lag of a node's replicas during a benchmark.

#ifndef TOWLINE_CTL_BENCH_WATCH_H_
#define TOWLINE_CTL_BENCH_WATCH_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"

#include "client/client.h"
#include "common/mutex.h"
#include "ctl/environment.h"

namespace towline::ctl {

// Threads: all methods from the thread that made it.
class ReplicaWatch {
 public:
  struct Lag {
    uint64_t min_records = UINT64_MAX;
    uint64_t max_records = 0;
  };

  // Asks for the status five times a second. `client` must outlive the watch.
  explicit ReplicaWatch(client::Client& client);
  ~ReplicaWatch();
  ReplicaWatch(const ReplicaWatch&) = delete;
  ReplicaWatch& operator=(const ReplicaWatch&) = delete;

  // Ends the watching; lags by node id.
  std::map<std::string, Lag> Stop();

  // Waits until no replica lags; returns the seconds that took, or nothing after `timeout_us` or an interrupt.
  std::optional<double> WaitCaughtUp(const Interrupt& interrupt, int64_t timeout_us);

 private:
  void Sample() TOWLINE_EXCLUDES(mutex_);

  client::Client& client_;
  Interrupt stop_;
  Mutex mutex_;
  std::map<std::string, Lag> lags_ TOWLINE_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_BENCH_WATCH_H_
