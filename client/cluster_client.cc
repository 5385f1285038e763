#include "client/cluster_client.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "client/bookmark_proto.h"
#include "client/call_budget.h"
#include "client/channel.h"
#include "client/node_pool.h"
#include "client/proto_json.h"
#include "client/retry_policy.h"
#include "client/unary_call.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/names.h"
#include "common/rng.h"

namespace towline::client {
namespace {

// Long enough for a node that works, short enough that a dead one does not hold up the others.
constexpr int64_t kDiscoverMicros = 1'000'000;

absl::Status InvalidOptions(absl::string_view why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_options", why);
}

absl::Status CheckOptions(const ClientOptions& options) {
  if (options.endpoints.empty()) return InvalidOptions("no endpoint is given; at least one is needed");
  for (const std::string& endpoint : options.endpoints) TOWLINE_RETURN_IF_ERROR(ValidateEndpoint(endpoint));
  if (!options.client_id.empty()) TOWLINE_RETURN_IF_ERROR(ValidateName("client id", options.client_id));
  if (options.timeout.count() < 1 || options.attempt_timeout.count() < 1) {
    return InvalidOptions("timeout and attempt_timeout must be at least 1 ms");
  }
  if (options.backoff_min.count() < 1 || options.backoff_max < options.backoff_min) {
    return InvalidOptions("backoff_min must be at least 1 ms, and backoff_max not less than it");
  }
  if (options.rounds_max < 0) return InvalidOptions("rounds_max must not be negative");
  return absl::OkStatus();
}

absl::Status NoPrimary() {
  return MakeError(absl::StatusCode::kUnavailable, "no_primary", "no node that answers names a primary",
                   "promote one, or retry");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterClient>> ClusterClient::Make(const ClientOptions& options) {
  TOWLINE_RETURN_IF_ERROR(CheckOptions(options));
  return std::unique_ptr<ClusterClient>(new ClusterClient(options));
}

ClusterClient::ClusterClient(const ClientOptions& options)
    : options_(options),
      client_id_(options.client_id.empty() ? "c-" + HexId(NewId(*SystemRng())) : options.client_id),
      pool_(std::make_unique<NodePool>(options.endpoints, options.follow)) {
  if (!options.client_id.empty()) next_sequence_ = static_cast<uint64_t>(SystemClock()->WallMicros());
}

ClusterClient::~ClusterClient() = default;

CallRoute ClusterClient::Route(const CallOptions& options) const {
  CallRoute route;
  route.timeout_us = Micros(options.timeout.value_or(options_.timeout));
  route.preference = options.read_preference.value_or(options_.read_preference);
  if (options.at.has_value() && !options.at->empty()) route.at = ToProto(*options.at);
  route.wait_us = Micros(options.wait.value_or(options_.bookmark_wait));
  return route;
}

void ClusterClient::Complete(v1::WriteRequest* request) {
  // A single attempt needs no id, and would push an id of somebody else out of the server's window.
  const bool repeats = MayDiscover() || options_.rounds_max != 1;
  if (!request->has_request_id() && repeats) {
    request->mutable_request_id()->set_client_id(client_id_);
    request->mutable_request_id()->set_sequence(next_sequence_.fetch_add(1, std::memory_order_relaxed));
  }
  if (!request->has_durability() && options_.durability.has_value()) {
    *request->mutable_durability() = ToProto(*options_.durability);
  }
}

bool ClusterClient::MayDiscover() const { return options_.follow || options_.endpoints.size() > 1; }

NodePtr ClusterClient::NextForWrite(const std::set<std::string>& tried, uint64_t discoveries, int64_t left_us) {
  const auto is_new = [&tried](const NodePtr& node) { return node != nullptr && !tried.contains(node->endpoint); };
  NodePtr node = pool_->Primary();
  if (is_new(node)) return node;
  if (node == nullptr && tried.empty()) return pool_->All().front();
  if (left_us <= 0 || !MayDiscover()) return nullptr;
  (void)pool_->Discover(discoveries, std::min(left_us, kDiscoverMicros));
  node = pool_->Primary();
  if (is_new(node)) return node;
  // The address that the primary tells may be none that this host reaches.
  for (const NodePtr& other : pool_->All()) {
    if (is_new(other)) return other;
  }
  return nullptr;
}

absl::StatusOr<FromNode<v1::WriteResponse>> ClusterClient::Write(v1::WriteRequest request, const CallRoute& route) {
  Complete(&request);
  CallBudget budget(options_, route.timeout_us);
  const int64_t level_us = int64_t{1000} * request.durability().timeout_ms();
  WriteFate fate = WriteFate::kNotLogged;
  absl::Status last;
  int attempts = 0;
  do {
    std::set<std::string> tried;
    const uint64_t discoveries = pool_->discoveries();
    while (const NodePtr node = NextForWrite(tried, discoveries, budget.left_us())) {
      if (attempts > 0 && budget.left_us() <= 0) break;  // what was said before tells more than a timeout
      ++attempts;
      auto response =
          CallUnary(*node->kv, &v1::KvService::Stub::Write, request, node->endpoint, budget.AttemptMicros(level_us));
      if (response.ok()) {
        ObserveWrite(response->position(), node->endpoint);
        return FromNode<v1::WriteResponse>{*std::move(response), node->endpoint};
      }
      last = response.status();
      fate = CombineFates(fate, FateOfAttempt(last));
      if (!IsWorthAnotherWrite(last)) return WithFate(last, fate);
      if (absl::IsResourceExhausted(last)) break;  // it is the primary, and others could not help
      tried.insert(node->endpoint);
      if (!pool_->TakeHint(last, node->endpoint)) pool_->Doubt(node->endpoint);
    }
  } while (budget.NextRound());
  return WithFate(GaveUp(last, attempts, budget.spent_us()), fate);
}

void ClusterClient::ObserveWrite(const v1::Position& position, const std::string& endpoint) {
  pool_->Confirm(endpoint, position.term());
  if (!options_.session_reads || !session_.NeedsProof(position)) return;
  const std::optional<v1::Position> seen = session_.Get();
  for (const NodePtr& node : pool_->All()) {
    if (node->endpoint != endpoint || !seen.has_value()) continue;
    const auto history = CallUnary(*node->admin, &v1::AdminService::Stub::GetHistory, v1::GetHistoryRequest(), endpoint,
                                   kDiscoverMicros);
    // A node that is gone by now proves nothing: what was written is what counts then.
    session_.Settle(position, !history.ok() || KeepsPosition(history->history(), *seen));
    return;
  }
  session_.Settle(position, true);
}

absl::StatusOr<v1::GetTopologyResponse> ClusterClient::Topology(const CallRoute& route) {
  CallBudget budget(options_, route.timeout_us);
  absl::Status asked;
  do {
    asked = pool_->Discover(pool_->discoveries(), std::max<int64_t>(1, std::min(budget.left_us(), kDiscoverMicros)));
    if (asked.ok()) return pool_->topology();
  } while (budget.NextRound());
  return asked;
}

absl::StatusOr<std::string> ClusterClient::FindPrimary(int64_t timeout_us) {
  if (!MayDiscover()) return options_.endpoints[0];
  if (const NodePtr known = pool_->Primary()) return known->endpoint;
  CallBudget budget(options_, timeout_us);
  absl::Status asked;
  do {
    asked = pool_->Discover(pool_->discoveries(), std::max<int64_t>(1, std::min(budget.left_us(), kDiscoverMicros)));
    if (const NodePtr found = pool_->Primary()) return found->endpoint;
  } while (budget.NextRound());
  return asked.ok() ? NoPrimary() : asked;
}

std::string ClusterClient::StreamEndpoint(uint64_t losses) {
  if (!MayDiscover()) return options_.endpoints[0];
  if (pool_->Primary() == nullptr) (void)pool_->Discover(pool_->discoveries(), kDiscoverMicros);
  const NodePtr primary = pool_->Primary();
  if (primary != nullptr && losses % 2 == 0) return primary->endpoint;
  const std::vector<NodePtr> nodes = pool_->All();
  return nodes[(primary == nullptr ? losses : losses / 2) % nodes.size()]->endpoint;
}

std::string ClusterClient::known_primary() const {
  const NodePtr primary = pool_->Primary();
  return primary == nullptr ? "" : primary->endpoint;
}

std::unique_ptr<WriteStream> ClusterClient::OpenWriteStream(const std::string& endpoint,
                                                            const WriteStreamOptions& options,
                                                            OnWriteStreamAnswer on_answer) {
  return NewWriteStream(MakeChannel(endpoint, Connection::kDedicated), options, std::move(on_answer));
}

bool ClusterClient::FollowStream(const std::string& endpoint, const absl::Status& error) {
  if (pool_->TakeHint(error, endpoint)) return true;
  pool_->Doubt(endpoint);
  if (!MayDiscover()) return false;
  (void)pool_->Discover(pool_->discoveries(), kDiscoverMicros);
  const NodePtr found = pool_->Primary();
  return found != nullptr && found->endpoint != endpoint;
}

}  // namespace towline::client
