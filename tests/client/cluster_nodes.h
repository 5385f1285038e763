// Nodes for tests of the client of a whole cluster.

#ifndef TOWLINE_TESTS_CLIENT_CLUSTER_NODES_H_
#define TOWLINE_TESTS_CLIENT_CLUSTER_NODES_H_

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/error.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/support/status_matchers.h"
#include "towline/client.h"

namespace towline::testing {

inline constexpr char kNobody[] = "127.0.0.1:1";  // refuses connections

inline ClientOptions OptionsFor(std::vector<std::string> endpoints) {
  ClientOptions options;
  options.endpoints = std::move(endpoints);
  options.backoff_min = options.backoff_max = std::chrono::milliseconds(1);
  options.bookmark_wait = std::chrono::milliseconds(10);
  return options;
}

inline std::unique_ptr<Client> Make(const ClientOptions& options) {
  auto client = Client::Make(options);
  EXPECT_THAT(client, test::IsOk());
  return *std::move(client);
}

inline absl::Status Refusal(const std::string& reason, const std::string& primary = "") {
  ErrorInfo info{reason, "not here, not now", "", {}};
  if (!primary.empty()) info.metadata["primary_address"] = primary;
  return MakeError(absl::StatusCode::kFailedPrecondition, info);
}

// `server` says that `primary` is the primary of this term, and knows `others`.
inline void SetTopology(FakeServer& server, const FakeServer& primary, uint64_t term,
                        const std::vector<const FakeServer*>& others = {}) {
  MutexLock lock(&server.state().mutex);
  v1::GetTopologyResponse& topology = server.state().topology;
  topology.Clear();
  topology.set_term(term);
  topology.set_primary_node_id("p");
  topology.set_primary_address(primary.endpoint());
  for (const FakeServer* other : others) topology.add_members()->set_address(other->endpoint());
}

// Says that it is the primary of term 1.
class Node : public FakeServer {
 public:
  Node() { SetTopology(*this, *this, 1); }
};

inline std::vector<v1::WriteRequest> WritesOf(FakeServer& server) {
  MutexLock lock(&server.state().mutex);
  return server.state().writes;
}

}  // namespace towline::testing

#endif  // TOWLINE_TESTS_CLIENT_CLUSTER_NODES_H_
