// The client of a whole cluster, in terms of the API's messages: the work behind towline::Client and the verbs of
// towctl.

#ifndef TOWLINE_CLIENT_CLUSTER_CLIENT_H_
#define TOWLINE_CLIENT_CLUSTER_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/session.h"
#include "client/write_stream.h"
#include "towline/client.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::client {

class NodePool;
struct PooledNode;

// How one call is made.
struct CallRoute {
  int64_t timeout_us = 0;
  ReadPreference preference = ReadPreference::kPrimary;
  std::optional<v1::Position> at;  // reads
  int64_t wait_us = 0;             // reads: for a bookmark at one node
  std::string only_endpoint;       // reads: one attempt at this node; it must be known
};

// An answer and who gave it.
template <typename Response>
struct FromNode {
  Response response;
  std::string endpoint;
};

// Threads: all methods from any thread.
class ClusterClient {
 public:
  // INVALID_ARGUMENT, reason invalid_endpoint, invalid_name or invalid_options.
  static absl::StatusOr<std::unique_ptr<ClusterClient>> Make(const ClientOptions& options);
  ~ClusterClient();
  ClusterClient(const ClusterClient&) = delete;
  ClusterClient& operator=(const ClusterClient&) = delete;

  const ClientOptions& options() const { return options_; }
  const std::string& client_id() const { return client_id_; }
  CallRoute Route(const CallOptions& options) const;

  // Adds the default durability and a request id where there is none; no id if nothing is ever repeated.
  void Complete(v1::WriteRequest* request);

  // On the primary. An error has the record's fate in its metadata.
  absl::StatusOr<FromNode<v1::WriteResponse>> Write(v1::WriteRequest request, const CallRoute& route);

  // On the node that the route prefers, or another one that can answer; min_position and wait_ms are filled in.
  absl::StatusOr<FromNode<v1::GetResponse>> Get(v1::GetRequest request, const CallRoute& route);
  absl::StatusOr<FromNode<v1::BatchGetResponse>> BatchGet(v1::BatchGetRequest request, const CallRoute& route);
  absl::StatusOr<FromNode<v1::ScanResponse>> Scan(v1::ScanRequest request, const CallRoute& route);

  absl::StatusOr<v1::GetTopologyResponse> Topology(const CallRoute& route);

  // HOST:PORT of the primary, looked for if it is not known; UNAVAILABLE if nobody says. Without `follow` and with one
  // endpoint, that one.
  absl::StatusOr<std::string> FindPrimary(int64_t timeout_us);
  // Where to open a stream of writes, after so many losses in a row: the primary; where none is named or it is not
  // reached, the known nodes in turn.
  std::string StreamEndpoint(uint64_t losses);
  std::string known_primary() const;

  // A stream of writes on a node; on a connection of its own.
  std::unique_ptr<WriteStream> OpenWriteStream(const std::string& endpoint, const WriteStreamOptions& options,
                                               OnWriteStreamAnswer on_answer);
  // Tells of a stream that ended in an error. True: another node is the primary now, as far as known, so that it can be
  // opened again at once.
  bool FollowStream(const std::string& endpoint, const absl::Status& error);

  // A record was written at this position by the primary at `endpoint`.
  void ObserveWrite(const v1::Position& position, const std::string& endpoint);
  Session& session() { return session_; }

 private:
  explicit ClusterClient(const ClientOptions& options);

  struct Reads;

  // Whether there can be another node than the first one.
  bool MayDiscover() const;
  // The next node to try a write at in a round that has tried these already; null = none is left.
  std::shared_ptr<PooledNode> NextForWrite(const std::set<std::string>& tried, uint64_t discoveries, int64_t left_us);

  const ClientOptions options_;
  std::string client_id_;
  std::atomic<uint64_t> next_sequence_{1};
  std::unique_ptr<NodePool> pool_;
  Session session_;
};

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_CLUSTER_CLIENT_H_
