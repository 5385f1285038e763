// A node: its data directory, its role, and the loops that make it one. No gRPC here; the adapters call in.

#ifndef TOWLINE_SERVER_NODE_H_
#define TOWLINE_SERVER_NODE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/executor.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "primary/heartbeat_log.h"
#include "primary/node_view.h"
#include "primary/replication_source.h"
#include "replica/replica_controller.h"
#include "server/config.h"
#include "server/data_directory.h"
#include "server/failover.h"
#include "server/peer_check.h"
#include "server/primary_lifecycle.h"
#include "server/pulling.h"
#include "server/served_generation.h"
#include "towline/v1/admin_service.pb.h"

namespace towline {
namespace v1 {
class PullStart;
}

// What a node is built from. The references must outlive it.
struct NodeDependencies {
  FileSystem& fs;
  Clock& clock;
  Rng& rng;
  Executor& executor;
  Logger& logger;
  StoreFactory& stores;
  // Makes the upstream of a replica from its HOST:PORT.
  std::function<std::unique_ptr<Upstream>(const std::string& endpoint)> make_upstream;
  AskPeer ask_peer;
  PeerCalls& peers;
  // Called once, from any thread, when the node must end; `status` tells why.
  std::function<void(absl::Status)> on_fatal;
};

// Threads: all methods from any thread, Start and Stop from one.
class Node final : public SourceHost, public ReplicaHost, public FailoverHost {
 public:
  // Opens the data directory (see OpenDataDirectory for errors) and prepares the role. No loop of the role runs yet.
  static absl::StatusOr<std::unique_ptr<Node>> Open(const NodeConfig& config, const NodeDependencies& deps);
  ~Node() override;

  // Starts the loops: on a primary the first record, sequencer and expiry; on a replica the controller.
  absl::Status Start();

  // Ends sessions and loops in order, saves slots and watermark, flushes the store. Idempotent.
  void Stop();

  // SourceHost
  NodeView View() override;
  std::shared_ptr<LogAndState> Live() override;
  void OnReplicaAttached(const MemberInfo& member, bool knows_members) override;
  void OnReplicaAck(const ReplicaAck& ack) override;
  void OnReplicaGone(const std::string& node_id, uint64_t session_id) override;
  std::optional<CommitStage> WritersWait() override {
    return role() == nullptr ? std::nullopt : role()->commit().Interest();
  }
  void OnStaleSelf(Term judged, absl::string_view reason, absl::string_view message) override;

  // ReplicaHost
  ControlFile& control() override { return *directory_.control; }
  std::shared_ptr<Generation> LiveGeneration() override;
  void SwitchGeneration(std::shared_ptr<Generation> generation) override;
  void SetRewinding(bool rewinding) override;
  void OnHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn) override;
  void OnSlotCopies(const slots::SlotCopies& copies) override;
  void OnUpstreamPath(const UpstreamPath& path) override;
  const GenerationEnvironment& environment() override { return environment_; }
  Mutex& fence_gate() override { return fence_gate_; }

  // FailoverHost
  v1::Standing Describe() override;
  bool is_primary() const override { return role_.load(std::memory_order_acquire) == NodeRole::kPrimary; }
  std::optional<PeerStatus> FindPeer(const std::string& node_id) override;
  void StopPulling() override { pulling_->Hold(); }
  void ResumePulling() override;
  void StartPulling(const std::string& address) override { pulling_->Start(address); }
  absl::Status TakeOverSlots(Term term) override;
  void OnRoleChanged(const v1::RoleChange& change) override;

  // One of the few places of readers that wait for a position, so that the others are not held up.
  class BookmarkSlot {
   public:
    explicit BookmarkSlot(Node& node) : node_(node), taken_(node.bookmark_waits_.fetch_add(1) < kBookmarkWaitsMax) {}
    ~BookmarkSlot() { node_.bookmark_waits_.fetch_sub(1); }
    bool taken() const { return taken_; }

   private:
    Node& node_;
    const bool taken_;
  };

  // Why writes are not taken, or OK. On a replica: not_primary with the address, if known.
  absl::Status CheckWritable();
  // CheckWritable, and RESOURCE_EXHAUSTED, reason disk_full, while a write would only wait for space.
  absl::Status CheckTakesWrites();
  // Writes are refused, or wait, for want of space.
  bool DiskFull();
  // Why reads are not served, or OK.
  absl::Status CheckReadable();
  // Of a node that is or was a primary since it started; use it after CheckWritable.
  const ClusterId& primary_cluster_id() const { return primary_cluster_id_; }
  // nullptr on a replica, and until writes open for the first time: use it after CheckWritable.
  Sequencer* sequencer() { return role() == nullptr ? nullptr : &role()->sequencer(); }
  // Likewise; valid as long as this node.
  PrimaryRole* primary() { return role(); }
  // With what this node would start to pull from another one now.
  v1::PullStart DescribeStart();
  // On a primary: see PrimaryLifecycle::Recover. FAILED_PRECONDITION, reason not_primary.
  absl::Status Recover(const std::string& from);
  // On a replica: loads a snapshot though the log would do. False if a load runs already. FAILED_PRECONDITION, reason
  // not_replica.
  absl::StatusOr<bool> RequestBootstrap();
  // On a primary: see RemoveMemberRequest.
  absl::Status RemoveMember(const std::string& node_id, bool force);
  // On a primary: see SetMinReplicasRequest. *unchanged: it was so. Returns the LSN of the record, 0 if unchanged.
  absl::StatusOr<Lsn> SetMinReplicas(uint32_t min_replicas, bool* unchanged);
  ReplicationSource& source() { return *source_; }
  Failover& failover() { return *failover_; }
  // Node id of the primary that this node knows of, or itself; empty = not known.
  std::string PrimaryNode();
  // HOST:PORT that a replica pulls from; empty = none is known.
  std::string UpstreamEndpoint() const { return pulling_->endpoint(); }
  // Changes of role since the process started, oldest first.
  std::vector<v1::RoleChange> RoleChanges();
  // By role and reason.
  std::map<std::pair<std::string, std::string>, uint64_t> RoleChangeCounts();
  slots::SlotTable& slots() { return *directory_.slots; }
  // nullopt on a primary, and before Start.
  std::optional<ReplicaStatusView> ReplicaStatus();
  // How old the state may be: the age of the oldest heartbeat that it does not cover, or of the newest heartbeat if
  // that is more (silence is no freshness). nullopt before the first heartbeat.
  std::optional<double> StalenessSeconds();
  // Highest LSN that meets the cluster's commit level, as known here.
  Lsn CommittedLsn() override;
  // writable, streaming, ... as DESIGN 11 of the operator surface; `reason` is set when attention is needed.
  std::string State(std::string* reason);
  uint64_t expired_total() const { return role() == nullptr ? 0 : role()->expired_total(); }

  const NodeConfig& config() const { return config_; }
  // Of the file system that holds the data directory.
  absl::StatusOr<SpaceInfo> Space() { return deps_.fs.Space(config_.data_dir); }
  Clock& clock() { return deps_.clock; }
  Logger& logger() { return deps_.logger; }
  Rng& rng() { return deps_.rng; }
  int64_t started_micros() const { return started_micros_; }
  const std::string& advertised_address() const { return advertised_; }
  // A port may be chosen at bind time: call before Start.
  void SetAdvertisedAddress(std::string address) { advertised_ = std::move(address); }

 private:
  std::shared_ptr<ServedGeneration> MakeLive(std::shared_ptr<Generation> generation) const;
  // Of store files that this node sends and takes; empty = none.
  std::string FileForm() const;
  static constexpr int kBookmarkWaitsMax = 2;

  Node(const NodeConfig& config, const NodeDependencies& deps);
  void MakeLifecycle();
  void MakePulling();
  void MakeFailover();
  void NameCluster();
  void HandOverSlots();
  StepResult Tick();
  void SaveWatermarkWhenIdle();
  void TellCommonLsn();
  PrimaryRole* role() const { return lifecycle_->role(); }
  ReplicaOptions PullOptions() const;
  absl::Status NotPrimary();
  void Fatal(const absl::Status& status);

  const NodeConfig config_;
  const NodeDependencies deps_;
  GenerationEnvironment environment_;
  const int64_t started_micros_;
  const uint64_t process_instance_;
  std::string advertised_;
  ClusterId primary_cluster_id_;
  std::atomic<NodeRole> role_{NodeRole::kPrimary};
  DataDirectory directory_;

  Mutex fence_gate_;
  Mutex mutex_;
  std::vector<v1::RoleChange> role_changes_ TOWLINE_GUARDED_BY(mutex_);  // the last ones
  std::map<std::pair<std::string, std::string>, uint64_t> role_change_counts_ TOWLINE_GUARDED_BY(mutex_);
  std::shared_ptr<ServedGeneration> live_ TOWLINE_GUARDED_BY(mutex_);
  HeartbeatLog heartbeats_ TOWLINE_GUARDED_BY(mutex_);     // of the upstream
  UpstreamPath upstream_path_ TOWLINE_GUARDED_BY(mutex_);  // as it told last
  bool started_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool stopped_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::atomic<bool> fatal_{false};
  std::atomic<bool> rewinding_{false};
  std::atomic<int> bookmark_waits_{0};

  // Ticker only.
  Lsn watermark_candidate_ = 0;
  int64_t watermark_since_micros_ = 0;
  int64_t next_common_micros_ = 0;

  std::unique_ptr<ReplicationSource> source_;
  std::unique_ptr<PrimaryLifecycle> lifecycle_;
  std::unique_ptr<Pulling> pulling_;
  std::unique_ptr<Failover> failover_;
  std::unique_ptr<Loop> ticker_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_NODE_H_
