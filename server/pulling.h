// A node's pulling from an upstream: it begins when the node is, or becomes, a replica, and ends when it is to be the
// primary.

#ifndef TOWLINE_SERVER_PULLING_H_
#define TOWLINE_SERVER_PULLING_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/executor.h"
#include "common/mutex.h"
#include "replica/replica_controller.h"
#include "server/following_upstream.h"

namespace towline {

// Threads: all methods from any thread.
class Pulling {
 public:
  Pulling(ReplicaHost& host, Executor& executor, std::unique_ptr<FollowingUpstream> upstream,
          std::function<ReplicaOptions()> options);
  ~Pulling();

  // Begins, or looks for an upstream anew; `preferred` (HOST:PORT) is asked too, unless empty. While it is held, only
  // remembers that.
  void Start(const std::string& preferred) TOWLINE_EXCLUDES(mutex_);

  // Ends, and stays so until Release. Returns when nothing is pulled any more.
  void Hold() TOWLINE_EXCLUDES(mutex_);
  void Release() TOWLINE_EXCLUDES(mutex_);

  // Ends for good.
  void Stop() TOWLINE_EXCLUDES(mutex_);

  // nullopt while nothing is pulled.
  std::optional<ReplicaStatusView> Status() const TOWLINE_EXCLUDES(mutex_);
  std::string endpoint() const { return upstream_->endpoint(); }

  // See ReplicaController; nullopt while nothing is pulled.
  std::optional<bool> RequestBootstrap() TOWLINE_EXCLUDES(mutex_);

 private:
  // A controller and the loop that steps it.
  struct Active {
    std::unique_ptr<ReplicaController> controller;
    std::unique_ptr<Loop> loop;
  };

  void End() TOWLINE_EXCLUDES(mutex_);

  ReplicaHost& host_;
  Executor& executor_;
  const std::unique_ptr<FollowingUpstream> upstream_;
  const std::function<ReplicaOptions()> options_;

  mutable Mutex mutex_;
  bool held_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool stopped_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Active> active_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_SERVER_PULLING_H_
