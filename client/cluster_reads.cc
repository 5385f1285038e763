// Reads of a ClusterClient: which node is asked, and who is asked when it cannot answer.

#include <algorithm>
#include <utility>
#include <vector>

#include "client/call_budget.h"
#include "client/cluster_client.h"
#include "client/node_pool.h"
#include "client/retry_policy.h"
#include "client/unary_call.h"
#include "common/clock.h"
#include "common/error.h"

namespace towline::client {
namespace {

constexpr int64_t kDiscoverMicros = 1'000'000;
constexpr int64_t kWaitMaxMicros = 30'000'000;  // the server's limit

// Nobody else can tell more: the primary's line is the one that won.
absl::Status Discarded(const absl::Status& error) {
  ErrorInfo info = GetErrorInfo(error);
  info.next_action =
      "what was seen there was given up by a failover: read the keys again, after Client::ResetSession if it was this "
      "client's session";
  return MakeError(error.code(), std::move(info));
}

}  // namespace

struct ClusterClient::Reads {
  template <typename Request, typename Response>
  using Method = grpc::Status (v1::KvService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

  // The nodes that one round asks, and after them the primary.
  class Round {
   public:
    Round(ClusterClient& cluster, const CallRoute& route)
        : cluster_(cluster), discoveries_(cluster.pool_->discoveries()) {
      if (!route.only_endpoint.empty()) {
        for (const NodePtr& node : cluster.pool_->All()) {
          if (node->endpoint == route.only_endpoint) nodes_ = {node};
        }
        asked_primary_ = true;
        return;
      }
      // A node of the line that lost would go on as if nothing had happened.
      const bool discarded = cluster.options_.session_reads && cluster.session_.discarded();
      const bool any = route.preference == ReadPreference::kAny && cluster.options_.follow;
      if (any && discoveries_ == 0) found_ = cluster.pool_->Discover(discoveries_, kDiscoverMicros);
      nodes_ = cluster.pool_->ReadOrder(discarded ? ReadPreference::kPrimary : route.preference);
      if (nodes_.empty() && !cluster.MayDiscover()) nodes_ = cluster.pool_->All();
      asked_primary_ = !cluster.MayDiscover();
    }

    // Null = none is left.
    NodePtr Next(int64_t left_us) {
      if (next_ < nodes_.size()) return nodes_[next_++];
      if (asked_primary_ || left_us <= 0) return nullptr;
      asked_primary_ = true;
      found_ = cluster_.pool_->Discover(discoveries_, std::min(left_us, kDiscoverMicros));
      NodePtr primary = cluster_.pool_->Primary();
      if (primary == nullptr) return nullptr;
      for (const NodePtr& node : nodes_) {
        // Asked before it was known for sure to be the primary: only what it said of a position has to be heard again.
        if (node == primary && !repeat_primary_) return nullptr;
      }
      return primary;
    }

    void RepeatPrimary() { repeat_primary_ = true; }
    bool asked_primary() const { return asked_primary_; }
    const absl::Status& found() const { return found_; }

   private:
    ClusterClient& cluster_;
    const uint64_t discoveries_;
    std::vector<NodePtr> nodes_;
    size_t next_ = 0;
    bool asked_primary_ = false;  // or is not to be
    bool repeat_primary_ = false;
    absl::Status found_;
  };

  static std::optional<v1::Position> BookmarkOf(const ClusterClient& cluster, const CallRoute& route) {
    std::optional<v1::Position> bookmark = route.at;
    if (!cluster.options_.session_reads) return bookmark;
    std::optional<v1::Position> seen = cluster.session_.Get();
    if (seen.has_value() && (!bookmark.has_value() || IsLater(*seen, *bookmark))) bookmark = std::move(seen);
    return bookmark;
  }

  template <typename Request, typename Response>
  static absl::StatusOr<FromNode<Response>> Run(ClusterClient& cluster, Request request, const CallRoute& route,
                                                Method<Request, Response> method) {
    CallBudget budget(cluster.options_, route.timeout_us);
    const int64_t wait_us = std::min(route.wait_us, kWaitMaxMicros);
    if (const auto bookmark = BookmarkOf(cluster, route)) {
      *request.mutable_min_position() = *bookmark;
      request.set_wait_ms(static_cast<uint32_t>(std::max<int64_t>(1, wait_us / 1000)));
    }
    absl::Status last;
    int attempts = 0;
    do {
      Round round(cluster, route);
      while (const NodePtr node = round.Next(budget.left_us())) {
        if (attempts > 0 && budget.left_us() <= 0) break;  // what was said before tells more than a timeout
        ++attempts;
        auto response = CallUnary(*node->kv, method, request, node->endpoint, budget.AttemptMicros(wait_us));
        if (response.ok()) {
          node->suspended_until_us = 0;
          cluster.pool_->ObserveTerm(response->position().term());
          if (cluster.options_.session_reads) cluster.session_.Cover(response->position());
          return FromNode<Response>{*std::move(response), node->endpoint};
        }
        last = response.status();
        if (!IsWorthAnotherRead(last)) return last;
        if (GetErrorInfo(last).reason == "position_discarded") {
          if (round.asked_primary()) return Discarded(last);
          round.RepeatPrimary();
        }
        node->suspended_until_us = SystemClock()->MonotonicMicros() + ReadSuspensionMicros(last);
        if (IsTransportError(last)) cluster.pool_->Doubt(node->endpoint);
      }
      if (last.ok()) last = round.found();
      if (!route.only_endpoint.empty()) break;
    } while (budget.NextRound());
    if (last.ok()) {
      last = MakeError(absl::StatusCode::kUnavailable, "no_primary", "no node that answers names a primary",
                       "promote one, or read with another preference");
    }
    return GaveUp(last, attempts, budget.spent_us());
  }
};

absl::StatusOr<FromNode<v1::GetResponse>> ClusterClient::Get(v1::GetRequest request, const CallRoute& route) {
  return Reads::Run(*this, std::move(request), route, &v1::KvService::Stub::Get);
}

absl::StatusOr<FromNode<v1::BatchGetResponse>> ClusterClient::BatchGet(v1::BatchGetRequest request,
                                                                       const CallRoute& route) {
  return Reads::Run(*this, std::move(request), route, &v1::KvService::Stub::BatchGet);
}

absl::StatusOr<FromNode<v1::ScanResponse>> ClusterClient::Scan(v1::ScanRequest request, const CallRoute& route) {
  return Reads::Run(*this, std::move(request), route, &v1::KvService::Stub::Scan);
}

}  // namespace towline::client
