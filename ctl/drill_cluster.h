// The nodes of a drill: of a throw-away cluster on this machine, whose processes the drill owns, or of one that exists.

#ifndef TOWLINE_CTL_DRILL_CLUSTER_H_
#define TOWLINE_CTL_DRILL_CLUSTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/client.h"
#include "ctl/child_process.h"
#include "ctl/environment.h"
#include "ctl/tcp_relay.h"

namespace towline::ctl {

struct LocalClusterOptions {
  int replicas = 2;
  std::string program;                          // towlined
  bool relay = false;                           // the primary can be cut off from the others
  bool ends_with_us = true;                     // the processes do not outlive us, however we end
  std::map<std::string, std::string> settings;  // of all nodes: "wal.keep_bytes" -> "1MiB"
};

// One node of a local cluster.
struct LocalNode {
  std::string node_id;
  std::string endpoint;         // where others reach it; the relay's if there is one
  std::string direct_endpoint;  // where it listens
  std::string data_dir;
  std::string log_path;
  std::vector<std::string> command;
  std::unique_ptr<ChildProcess> process;
  std::unique_ptr<TcpRelay> relay;
};

// Threads: external synchronization. Destroyed, it kills what runs and removes the directory, unless Keep was called.
class LocalCluster {
 public:
  // Starts p1 and r1, r2, ...; waits until all replicas stream and are members. Errors carry the end of a node's log.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const LocalClusterOptions& options,
                                                             const Interrupt& interrupt);
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  const std::string& directory() const { return directory_; }
  std::vector<LocalNode>& nodes() { return nodes_; }
  LocalNode& node(const std::string& node_id);

  // Starts the process of a node that does not run.
  absl::Status Launch(LocalNode& node);

  // The nodes go on without us, the directory stays. Requires `ends_with_us` false.
  void Keep();

 private:
  explicit LocalCluster(const LocalClusterOptions& options) : options_(options) {}

  absl::Status MakeNodes();
  absl::Status WaitReady(const Interrupt& interrupt);

  const LocalClusterOptions options_;
  std::string directory_;
  std::vector<LocalNode> nodes_;
  bool keep_ = false;
};

// A connection for one question, which no earlier failure delays. INVALID_ARGUMENT, reason invalid_endpoint.
absl::StatusOr<std::unique_ptr<client::Client>> AskFresh(const std::string& endpoint, int64_t timeout_us);

// Asks `done` again and again until it says true; DEADLINE_EXCEEDED, reason drill_timeout, names `what` and the last
// error; CANCELLED, reason interrupted.
absl::Status WaitUntil(const Interrupt& interrupt, int64_t timeout_us, const std::string& what,
                       const std::function<absl::StatusOr<bool>()>& done);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_DRILL_CLUSTER_H_
