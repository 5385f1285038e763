// Nodes of one cluster in one process: real nodes with their loops on threads, simulated disks, and calls between them
// that are function calls.
//
//   SimCluster cluster;
//   cluster.Start("p1", NodeRole::kPrimary);
//   cluster.Start("r1", NodeRole::kReplica, "p1:1");
//   cluster.Kill("p1");
//   cluster.node("r1").failover().Promote({});

#ifndef TOWLINE_TESTS_SERVER_SIM_CLUSTER_H_
#define TOWLINE_TESTS_SERVER_SIM_CLUSTER_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "server/node.h"
#include "server/peer_calls.h"
#include "store/memory_store.h"
#include "tests/support/recording_logger.h"
#include "tests/support/sim_file_system.h"

namespace towline::test {

// The disks of a cluster at one moment, by node id.
using ClusterDisks = std::map<std::string, std::shared_ptr<SimFileSystem>>;

// Threads: all methods from any thread, but Start and Kill from one. A node's endpoint is "<node id>:1".
class SimCluster : public PeerCalls {
 public:
  SimCluster();
  ~SimCluster() override;

  // Starts a node on its disk: an empty one, that of before its Kill, or what SetDisks gave. An error if it does not
  // open.
  absl::Status Start(const std::string& node_id, NodeRole role, const std::string& upstream = "");
  // The process is gone; its disk keeps what was written.
  void Kill(const std::string& node_id);
  // Nobody reaches the node, and it reaches nobody, until Connect.
  void Disconnect(const std::string& node_id) TOWLINE_EXCLUDES(mutex_);
  void Connect(const std::string& node_id) TOWLINE_EXCLUDES(mutex_);

  // The disks as a power loss of all machines would leave them now, without what was not synced.
  ClusterDisks DisksAfterPowerLoss() const;
  // Before the first Start.
  void SetDisks(ClusterDisks disks) { disks_ = std::move(disks); }
  SimFileSystem& disk(const std::string& node_id) { return *disks_.at(node_id); }

  Node& node(const std::string& node_id) { return *Find(node_id); }
  bool is_running(const std::string& node_id) const { return Find(node_id) != nullptr; }

  // Writes one key through the sequencer of the node; waits for the answer.
  absl::Status Put(const std::string& node_id, const std::string& key, const std::string& value);
  // "" = absent.
  std::string Get(const std::string& node_id, const std::string& key);
  // Waits, with a deadline, until `done`; false if it does not come.
  static bool Await(const std::function<bool()>& done);
  // Waits until all running nodes have the same log and state as `primary`; what is wrong, or empty.
  std::string AwaitConvergence(const std::string& primary);

  // What HandOver answers is lost from now on.
  void LoseHandOverAnswers() { lose_hand_over_answers_ = true; }

  // PeerCalls, as each node has them: through the network.
  std::vector<absl::StatusOr<v1::Standing>> AskStandings(const std::vector<std::string>& endpoints,
                                                         int64_t timeout_micros) override;
  std::vector<absl::StatusOr<v1::FenceResponse>> Fence(const std::vector<std::string>& endpoints,
                                                       const std::vector<v1::FenceRequest>& requests,
                                                       int64_t timeout_micros) override;
  absl::StatusOr<v1::HandOverResponse> HandOver(const std::string& endpoint, const v1::HandOverRequest& request,
                                                int64_t timeout_micros) override;

  // The node behind an endpoint; nullptr if it cannot be reached.
  std::shared_ptr<Node> Reach(const std::string& endpoint) const TOWLINE_EXCLUDES(mutex_);

 private:
  // Everything of a process.
  struct Process;

  std::shared_ptr<Node> Find(const std::string& node_id) const TOWLINE_EXCLUDES(mutex_);

  ClusterDisks disks_;
  std::atomic<bool> lose_hand_over_answers_ = false;
  mutable Mutex mutex_;
  std::map<std::string, std::shared_ptr<Process>> processes_ TOWLINE_GUARDED_BY(mutex_);
  std::set<std::string> disconnected_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SERVER_SIM_CLUSTER_H_
