#include "client/node_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "client/channel.h"
#include "client/unary_call.h"
#include "common/clock.h"
#include "common/error.h"

namespace towline::client {
namespace {

// A cluster has a handful of members; a list that is wrong must not open connections without end.
constexpr size_t kLearnedMax = 32;

// How long slower nodes may contradict the first answer that names a primary.
constexpr int64_t kSettleMicros = 100'000;

// Questions to all nodes at a time.
class TopologyPoll {
 public:
  TopologyPoll(const std::vector<NodePtr>& nodes, int64_t timeout_us)
      : timeout_us_(timeout_us), asked_(nodes.size()), open_(nodes.size()) {
    const auto deadline = std::chrono::system_clock::now() + std::chrono::microseconds(timeout_us);
    for (size_t i = 0; i < nodes.size(); ++i) {
      Asked& asked = asked_[i];
      asked.node = nodes[i];
      asked.context.set_deadline(deadline);
      asked.node->admin->async()->GetTopology(&asked.context, &asked.request, &asked.response,
                                              [this, &asked](const grpc::Status& status) { OnDone(asked, status); });
    }
  }

  // The answer with the highest term among those that name a primary, or else any; or why there is none.
  absl::StatusOr<v1::GetTopologyResponse> Best() TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    while (open_ > 0 && !named_) changed_.Wait(&mutex_);
    const int64_t until = SystemClock()->MonotonicMicros() + kSettleMicros;
    while (open_ > 0) {
      const int64_t left = until - SystemClock()->MonotonicMicros();
      if (left <= 0) break;
      changed_.WaitFor(&mutex_, left);
    }
    for (Asked& asked : asked_) asked.context.TryCancel();
    while (open_ > 0) changed_.Wait(&mutex_);
    const Asked* best = nullptr;
    for (const Asked& asked : asked_) {
      if (asked.status.ok() && (best == nullptr || IsBetter(asked.response, best->response))) best = &asked;
    }
    if (best != nullptr) return best->response;
    return ExplainCallError(asked_[0].status, asked_[0].node->endpoint, timeout_us_);
  }

 private:
  struct Asked {
    NodePtr node;
    grpc::ClientContext context;
    v1::GetTopologyRequest request;
    v1::GetTopologyResponse response;
    grpc::Status status;
  };

  static bool IsBetter(const v1::GetTopologyResponse& a, const v1::GetTopologyResponse& b) {
    if (a.primary_address().empty() != b.primary_address().empty()) return b.primary_address().empty();
    return a.term() > b.term();
  }

  void OnDone(Asked& asked, const grpc::Status& status) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    asked.status = status;
    named_ = named_ || (status.ok() && !asked.response.primary_address().empty());
    --open_;
    changed_.NotifyAll();
  }

  const int64_t timeout_us_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<Asked> asked_;
  size_t open_ TOWLINE_GUARDED_BY(mutex_);
  bool named_ TOWLINE_GUARDED_BY(mutex_) = false;
};

}  // namespace

PooledNode::PooledNode(const std::string& node_endpoint, const std::shared_ptr<grpc::Channel>& channel)
    : endpoint(node_endpoint), kv(v1::KvService::NewStub(channel)), admin(v1::AdminService::NewStub(channel)) {}

NodePool::NodePool(std::vector<std::string> seeds, bool learn) : seeds_(std::move(seeds)), learn_(learn) {}

bool NodePool::Usable(const std::string& endpoint) const {
  return std::find(seeds_.begin(), seeds_.end(), endpoint) != seeds_.end() ||
         (learn_ && ValidateEndpoint(endpoint).ok());
}

NodePtr NodePool::NodeAt(const std::string& endpoint) {
  NodePtr& node = nodes_[endpoint];
  if (node == nullptr) node = std::make_shared<PooledNode>(endpoint, MakeChannel(endpoint, Connection::kShared));
  return node;
}

NodePtr NodePool::Primary() const {
  MutexLock lock(&mutex_);
  const auto node = nodes_.find(primary_);
  return node == nodes_.end() ? nullptr : node->second;
}

std::vector<NodePtr> NodePool::All() {
  MutexLock lock(&mutex_);
  std::vector<NodePtr> nodes;
  for (const std::string& endpoint : seeds_) nodes.push_back(NodeAt(endpoint));
  for (const std::string& endpoint : learned_) nodes.push_back(NodeAt(endpoint));
  return nodes;
}

std::vector<NodePtr> NodePool::ReadOrder(ReadPreference preference) {
  if (preference == ReadPreference::kPrimary) {
    const NodePtr primary = Primary();
    return primary == nullptr ? std::vector<NodePtr>() : std::vector<NodePtr>{primary};
  }
  std::vector<NodePtr> nodes = All();
  if (preference == ReadPreference::kAny) {
    MutexLock lock(&mutex_);
    std::rotate(nodes.begin(), nodes.begin() + static_cast<int64_t>(next_read_++ % nodes.size()), nodes.end());
  }
  const int64_t now = SystemClock()->MonotonicMicros();
  const auto is_free = [now](const NodePtr& node) { return node->suspended_until_us.load() <= now; };
  const auto end = std::stable_partition(nodes.begin(), nodes.end(), is_free);
  if (end != nodes.begin()) nodes.erase(end, nodes.end());
  return nodes;
}

bool NodePool::TakeHint(const absl::Status& error, const std::string& from) {
  const ErrorInfo info = GetErrorInfo(error);
  const auto address = info.metadata.find("primary_address");
  if (info.reason != "not_primary" || address == info.metadata.end() || address->second == from) return false;
  MutexLock lock(&mutex_);
  if (!Usable(address->second)) return false;
  primary_ = NodeAt(address->second)->endpoint;
  primary_term_ = 0;
  return true;
}

void NodePool::Confirm(const std::string& endpoint, uint64_t term) {
  MutexLock lock(&mutex_);
  if (term < primary_term_) return;
  primary_ = endpoint;
  primary_term_ = term;
}

void NodePool::ObserveTerm(uint64_t term) {
  MutexLock lock(&mutex_);
  if (primary_term_ != 0 && term > primary_term_) primary_.clear();
}

void NodePool::Doubt(const std::string& endpoint) {
  MutexLock lock(&mutex_);
  if (primary_ == endpoint) primary_.clear();
}

absl::Status NodePool::Discover(uint64_t seen, int64_t timeout_us) {
  MutexLock lock(&discover_mutex_);
  if (discoveries() != seen) return absl::OkStatus();
  const auto best = TopologyPoll(All(), timeout_us).Best();
  if (best.ok()) Take(*best);
  discoveries_.fetch_add(1, std::memory_order_release);
  return best.status();
}

void NodePool::Take(const v1::GetTopologyResponse& topology) {
  MutexLock lock(&mutex_);
  topology_ = topology;
  for (const v1::Member& member : topology.members()) {
    const auto is_known = [&member](const std::vector<std::string>& list) {
      return std::find(list.begin(), list.end(), member.address()) != list.end();
    };
    if (!Usable(member.address()) || is_known(seeds_) || is_known(learned_)) continue;
    if (learned_.size() == kLearnedMax) {
      nodes_.erase(learned_.front());
      learned_.erase(learned_.begin());
    }
    learned_.push_back(member.address());
  }
  if (topology.primary_address().empty() || !Usable(topology.primary_address())) return;
  primary_ = NodeAt(topology.primary_address())->endpoint;
  primary_term_ = topology.term();
}

v1::GetTopologyResponse NodePool::topology() const {
  MutexLock lock(&mutex_);
  return topology_;
}

}  // namespace towline::client
