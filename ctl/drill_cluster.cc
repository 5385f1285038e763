#include "ctl/drill_cluster.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/file_system.h"

namespace towline::ctl {
namespace {

constexpr int64_t kReadyMicros = 60'000'000;
constexpr int64_t kAskMicros = 2'000'000;
constexpr int64_t kPollMicros = 10'000;
constexpr size_t kLogTailBytes = 600;

std::string LogTail(const std::string& path) {
  const auto log = ReadFile(*PosixFileSystem(), path);
  if (!log.ok()) return "";
  return log->substr(log->size() > kLogTailBytes ? log->size() - kLogTailBytes : 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<client::Client>> AskFresh(const std::string& endpoint, int64_t timeout_us) {
  return client::NewClient({endpoint, timeout_us, false});
}

absl::Status WaitUntil(const Interrupt& interrupt, int64_t timeout_us, const std::string& what,
                       const std::function<absl::StatusOr<bool>()>& done) {
  const int64_t end = SystemClock()->MonotonicMicros() + timeout_us;
  for (;;) {
    const absl::StatusOr<bool> result = done();
    if (result.ok() && *result) return absl::OkStatus();
    if (SystemClock()->MonotonicMicros() >= end) {
      const std::string last = result.ok() ? "" : absl::StrCat("; last: ", GetErrorInfo(result.status()).message);
      return MakeError(absl::StatusCode::kDeadlineExceeded, "drill_timeout",
                       absl::StrCat("waited ", timeout_us / 1'000'000, " s in vain for: ", what, last));
    }
    if (interrupt.WaitFor(kPollMicros)) {
      return MakeError(absl::StatusCode::kCancelled, "interrupted", "the drill was interrupted");
    }
  }
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const LocalClusterOptions& options,
                                                                  const Interrupt& interrupt) {
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(options));
  TOWLINE_ASSIGN_OR_RETURN(cluster->directory_, NewTemporaryDirectory("towline-drill-"));
  TOWLINE_RETURN_IF_ERROR(cluster->MakeNodes());
  for (LocalNode& node : cluster->nodes_) TOWLINE_RETURN_IF_ERROR(cluster->Launch(node));
  TOWLINE_RETURN_IF_ERROR(cluster->WaitReady(interrupt));
  return cluster;
}

LocalCluster::~LocalCluster() {
  if (keep_) return;
  nodes_.clear();  // kills the processes
  if (!directory_.empty()) (void)RemoveAll(*PosixFileSystem(), directory_);
}

LocalNode& LocalCluster::node(const std::string& node_id) {
  const auto found =
      std::find_if(nodes_.begin(), nodes_.end(), [&](const LocalNode& node) { return node.node_id == node_id; });
  TOWLINE_CHECK(found != nodes_.end());
  return *found;
}

absl::Status LocalCluster::MakeNodes() {
  for (int i = 0; i <= options_.replicas; ++i) {
    const bool primary = i == 0;
    LocalNode node;
    node.node_id = primary ? "p1" : absl::StrCat("r", i);
    node.data_dir = JoinPath(directory_, node.node_id);
    node.log_path = absl::StrCat(node.data_dir, ".log");
    TOWLINE_ASSIGN_OR_RETURN(const int port, FreePort());
    node.endpoint = node.direct_endpoint = absl::StrCat("127.0.0.1:", port);
    if (primary && options_.relay) {
      TOWLINE_ASSIGN_OR_RETURN(const int relay_port, FreePort());
      TOWLINE_ASSIGN_OR_RETURN(node.relay, TcpRelay::Start(relay_port, port));
      node.endpoint = node.relay->endpoint();
    }
    node.command = {options_.program, primary ? "primary" : "replica",
                    "--data-dir",     node.data_dir,
                    "--node-id",      node.node_id,
                    "--listen",       node.direct_endpoint,
                    "--advertise",    node.endpoint};
    if (!primary) node.command.insert(node.command.end(), {"--upstream", nodes_[0].endpoint});
    for (const auto& [name, value] : options_.settings) {
      node.command.insert(node.command.end(), {absl::StrCat("--", name), value});
    }
    nodes_.push_back(std::move(node));
  }
  return absl::OkStatus();
}

absl::Status LocalCluster::Launch(LocalNode& node) {
  node.process = nullptr;
  TOWLINE_ASSIGN_OR_RETURN(node.process, ChildProcess::Start({node.command, node.log_path, options_.ends_with_us}));
  return absl::OkStatus();
}

absl::Status LocalCluster::WaitReady(const Interrupt& interrupt) {
  for (LocalNode& node : nodes_) {
    const absl::Status ready =
        WaitUntil(interrupt, kReadyMicros, absl::StrCat(node.node_id, " is ready"), [&]() -> absl::StatusOr<bool> {
          if (!node.process->Running()) return absl::InternalError(absl::StrCat(node.node_id, " has ended"));
          TOWLINE_ASSIGN_OR_RETURN(const auto client, AskFresh(node.direct_endpoint, kAskMicros));
          TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client->GetStatus());
          const bool state = status.state() == "writable" || status.state() == "streaming";
          return state && static_cast<size_t>(status.members_size()) == nodes_.size();
        });
    if (!ready.ok()) return Annotate(ready, absl::StrCat("log of ", node.node_id, ": ", LogTail(node.log_path)));
  }
  return absl::OkStatus();
}

void LocalCluster::Keep() {
  TOWLINE_CHECK(!options_.ends_with_us);
  keep_ = true;
  for (LocalNode& node : nodes_) {
    if (node.process != nullptr) node.process->Release();
  }
}

}  // namespace towline::ctl
