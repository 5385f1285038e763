// Who is the primary: promises, fences, handing over, promotion.
//
// A node promises a term to one candidate only, durably, before it says so, and takes part in no older term afterwards:
// that is the whole of the safety. What promotion adds is that the promises it collects meet every set of replicas that
// may have acknowledged a write (promotion_rules.h). The steps are those of docs/guides/failover.md.

#ifndef TOWLINE_SERVER_FAILOVER_H_
#define TOWLINE_SERVER_FAILOVER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/executor.h"
#include "common/mutex.h"
#include "primary/replication_source.h"
#include "replica/replica_controller.h"
#include "server/peer_calls.h"
#include "server/primary_lifecycle.h"
#include "server/promotion_rules.h"
#include "towline/v1/admin_service.pb.h"

namespace towline {

// The node, as failover sees it.
// Threads: all methods from any thread, but for the changes of role, which come one at a time.
class FailoverHost {
 public:
  virtual ~FailoverHost() = default;

  virtual v1::Standing Describe() = 0;
  virtual bool is_primary() const = 0;
  // The session of a replica that pulls from here; nullopt if there is none.
  virtual std::optional<PeerStatus> FindPeer(const std::string& node_id) = 0;

  // Ends pulling from an upstream until ResumePulling; returns when nothing is pulled any more.
  virtual void StopPulling() = 0;
  // Pulls again, if the node is a replica.
  virtual void ResumePulling() = 0;
  // Looks for an upstream anew, `address` (HOST:PORT, may be empty) among the others, unless pulling is stopped.
  virtual void StartPulling(const std::string& address) = 0;

  // The copies of slots become slots of this node, which is about to be the primary of `term`.
  virtual absl::Status TakeOverSlots(Term term) = 0;

  // Control names another role, or another term as primary, and lifecycle or pulling follow it already.
  virtual void OnRoleChanged(const v1::RoleChange& change) = 0;
};

struct FailoverDependencies {
  FailoverHost& host;
  ReplicaHost& replica;  // control, live generation, environment
  PrimaryLifecycle& lifecycle;
  PeerCalls& peers;
  std::function<ReplicaOptions()> pull_options;
  std::function<std::unique_ptr<Upstream>(const std::string& endpoint)> make_upstream;
  std::function<std::string()> own_address;
};

// Threads: all methods from any thread. They wait for other nodes and for the disk.
class Failover {
 public:
  explicit Failover(FailoverDependencies deps);
  ~Failover();

  // See FailoverService in failover_service.proto.
  absl::StatusOr<v1::FenceResponse> Fence(const v1::FenceRequest& request) TOWLINE_EXCLUDES(change_mutex_);
  absl::StatusOr<v1::HandOverResponse> HandOver(const v1::HandOverRequest& request) TOWLINE_EXCLUDES(change_mutex_);
  absl::StatusOr<v1::PromotionReport> Promote(const v1::PromoteRequest& request) TOWLINE_EXCLUDES(change_mutex_);
  absl::StatusOr<v1::SwitchoverResponse> Switchover(const v1::SwitchoverRequest& request)
      TOWLINE_EXCLUDES(change_mutex_);

  // This primary is condemned, as it has seen a higher term: it becomes a replica, unless it was promoted meanwhile. An
  // error is fatal for the node.
  absl::Status StepDown(absl::string_view reason, absl::string_view message) TOWLINE_EXCLUDES(change_mutex_);

  // On a primary: tells the members of its term until all have answered. Once, at the node's start.
  void Start();
  void Stop();

 private:
  struct Takeover;

  // --- failover.cc ---
  absl::Status Grant(const v1::FenceRequest& request, absl::string_view reason) TOWLINE_REQUIRES(change_mutex_);
  std::optional<v1::FenceResponse> CheckFence(const v1::FenceRequest& request) TOWLINE_REQUIRES(change_mutex_);
  void TellConflict(const v1::FenceRequest& request) TOWLINE_REQUIRES(change_mutex_);
  absl::Status AwaitCandidate(const v1::HandOverRequest& request, int64_t deadline_micros);
  void RepeatFence(const std::vector<std::string>& node_ids) TOWLINE_EXCLUDES(absent_mutex_);
  StepResult StepFencer() TOWLINE_EXCLUDES(absent_mutex_);
  v1::FenceRequest MakeFence(Term term, const std::string& node_id) const;

  // --- promotion.cc ---
  PromotionInput Poll(int64_t timeout_micros);
  absl::Status Take(Takeover* takeover) TOWLINE_EXCLUDES(change_mutex_);
  absl::Status Promise(Takeover* takeover) TOWLINE_EXCLUDES(change_mutex_);
  absl::Status FencePeers(Takeover* takeover);
  absl::Status CatchUp(Takeover* takeover);
  absl::Status ApplyAll();
  absl::Status Commit(Takeover* takeover) TOWLINE_EXCLUDES(change_mutex_);

  ControlFile& control() const { return deps_.replica.control(); }
  Clock& clock() const { return deps_.replica.environment().clock; }
  Logger& logger() const { return deps_.replica.environment().logger; }

  const FailoverDependencies deps_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> running_{false};  // a promotion, switchover or hand-over

  // One decision at a time about promise, role and term; before every other lock of the node.
  Mutex change_mutex_;

  Mutex absent_mutex_;
  std::vector<std::string> absent_ TOWLINE_GUARDED_BY(absent_mutex_);  // members that do not know of our term yet
  std::unique_ptr<Loop> fencer_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_FAILOVER_H_
