// One drill under way: the nodes, the writers, and the steps that scenarios are made of.

#ifndef TOWLINE_CTL_DRILL_RUN_H_
#define TOWLINE_CTL_DRILL_RUN_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/client.h"
#include "ctl/drill_audit.h"
#include "ctl/drill_cluster.h"
#include "ctl/drill_history.h"
#include "ctl/drill_load.h"
#include "ctl/environment.h"

namespace towline::ctl {

struct DrillOptions {
  std::string scenario;
  bool local = false;
  uint64_t replicas = 2;
  int64_t before_us = 2'000'000;
  int64_t after_us = 1'000'000;
  uint64_t rpo_max = 0;
  uint64_t rpo_max_local = 0;
  bool judge_local = false;
  int64_t rto_max_us = 30'000'000;
  int64_t phase_timeout_us = 60'000'000;
  bool replicas_down = false;
  bool and_back = false;
  bool keep = false;
  std::string to;
  std::string i_mean_it;
  std::string program;
  std::string report;
  std::string metrics_file;
};

struct DrillNode {
  std::string node_id;
  std::string endpoint;
};

// Threads: external synchronization.
class DrillRun {
 public:
  // `local` is null for a cluster that exists; nodes[0] is the primary.
  DrillRun(const DrillOptions& options, const Interrupt& interrupt, LocalCluster* local, std::vector<DrillNode> nodes,
           const DrillLoadOptions& load);

  const DrillOptions& options() const { return options_; }
  LocalCluster& local() { return *local_; }  // requires a local cluster
  const std::vector<DrillNode>& nodes() const { return nodes_; }
  const DrillNode& node(const std::string& node_id) const;
  DrillLoad& load() { return load_; }
  DrillHistory& history() { return history_; }
  const Interrupt& interrupt() const { return interrupt_; }

  // The node that is the primary now, as the drill has made it.
  const DrillNode& primary() const { return node(primary_id_); }
  void set_primary(const std::string& node_id) { primary_id_ = node_id; }
  // All others, in their order.
  std::vector<DrillNode> Others() const;

  absl::StatusOr<std::unique_ptr<client::Client>> Ask(const DrillNode& node) const;

  // Starts the writers and waits until they all write.
  absl::Status Begin();
  // The moment from which on everything counts, right before what goes wrong does.
  void Inject();
  void Mark(const std::string& phase);

  absl::Status Wait(const std::string& what, const std::function<absl::StatusOr<bool>()>& done);
  absl::Status WaitWrites(const std::string& what, const std::function<bool(const std::vector<DrillWrite>&)>& done);
  // Until a write has failed behind the injection.
  absl::Status WaitDetected();
  // Until `count` writes of the level are answered behind this moment, in term `term` or a later one.
  absl::Status WaitAnswered(DrillLevel level, size_t count, uint64_t term = 0);
  // Until the node's state shows a write that is newer than this moment. Then marks the phase, unless it has no name.
  absl::Status WaitServes(const DrillNode& node, const std::string& phase);

  // Writes on for a moment, stops the writers and reads what is there. `scenario` is how the scenario ended.
  absl::Status End(const absl::Status& scenario);
  absl::Status DeleteKeys();

 private:
  absl::Status WaitSame();
  absl::Status CountResyncs();

  const DrillOptions& options_;
  const Interrupt& interrupt_;
  LocalCluster* const local_;
  const std::vector<DrillNode> nodes_;
  std::string primary_id_;
  DrillLoad load_;
  DrillHistory history_;
  uint64_t begin_lsn_ = 0;  // durable before the first write
  std::map<std::string, ResyncCounts> resyncs_before_;
};

// A scenario: injects, waits, marks. An error says what did not come about.
using DrillScenario = absl::Status (*)(DrillRun& run);
absl::Status RunKillPrimary(DrillRun& run);
absl::Status RunPartition(DrillRun& run);
absl::Status RunSwitchover(DrillRun& run);
absl::Status RunSlotLoss(DrillRun& run);
absl::Status RunFullResync(DrillRun& run);
absl::Status RunStall(DrillRun& run);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_RUN_H_
