// The nodes that a client knows, a connection to each, and which of them is the primary.

#ifndef TOWLINE_CLIENT_NODE_POOL_H_
#define TOWLINE_CLIENT_NODE_POOL_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "grpcpp/channel.h"
#include "towline/client.h"
#include "towline/v1/admin_service.grpc.pb.h"
#include "towline/v1/kv_service.grpc.pb.h"

namespace towline::client {

// One node. Connects when it is first used.
// Threads: any.
struct PooledNode {
  // One channel for all: a second one would wait for the first one's pause between attempts to connect.
  PooledNode(const std::string& node_endpoint, const std::shared_ptr<grpc::Channel>& channel);

  const std::string endpoint;
  const std::unique_ptr<v1::KvService::Stub> kv;
  const std::unique_ptr<v1::AdminService::Stub> admin;
  std::atomic<int64_t> suspended_until_us{0};  // monotonic time up to which reads go elsewhere
};

using NodePtr = std::shared_ptr<PooledNode>;

// Threads: all methods from any thread.
class NodePool {
 public:
  // With `learn`, members that nodes tell of are used too; else only `seeds`, which must be valid endpoints, one or
  // more.
  NodePool(std::vector<std::string> seeds, bool learn);

  // The primary as known; null = not known.
  NodePtr Primary() const TOWLINE_EXCLUDES(mutex_);

  // Given endpoints first, in their order, then the others.
  std::vector<NodePtr> All() TOWLINE_EXCLUDES(mutex_);

  // In which order to read, without the suspended ones unless that leaves nobody.
  std::vector<NodePtr> ReadOrder(ReadPreference preference) TOWLINE_EXCLUDES(mutex_);

  // Takes the address from a not_primary error: true if that names a usable node other than `from`.
  bool TakeHint(const absl::Status& error, const std::string& from) TOWLINE_EXCLUDES(mutex_);

  // The node at `endpoint` has written a record of this term as the primary.
  void Confirm(const std::string& endpoint, uint64_t term) TOWLINE_EXCLUDES(mutex_);

  // What an answer says of the term: a higher one than the primary's means that there is another primary.
  void ObserveTerm(uint64_t term) TOWLINE_EXCLUDES(mutex_);

  // Forgets who the primary is, if it is `endpoint`.
  void Doubt(const std::string& endpoint) TOWLINE_EXCLUDES(mutex_);

  // Changes with every Discover that has ended.
  uint64_t discoveries() const { return discoveries_.load(std::memory_order_acquire); }

  // Asks all nodes who the primary is, for at most `timeout_us`; takes what the one with the highest term says. Does
  // nothing if another thread has done so since `discoveries()` was `seen`. UNAVAILABLE: nobody answered.
  absl::Status Discover(uint64_t seen, int64_t timeout_us) TOWLINE_EXCLUDES(discover_mutex_, mutex_);

  // What the last Discover took.
  v1::GetTopologyResponse topology() const TOWLINE_EXCLUDES(mutex_);

 private:
  bool Usable(const std::string& endpoint) const TOWLINE_REQUIRES(mutex_);
  NodePtr NodeAt(const std::string& endpoint) TOWLINE_REQUIRES(mutex_);
  void Take(const v1::GetTopologyResponse& topology) TOWLINE_EXCLUDES(mutex_);

  const std::vector<std::string> seeds_;
  const bool learn_;
  std::atomic<uint64_t> discoveries_{0};
  Mutex discover_mutex_;  // one at a time; before mutex_

  mutable Mutex mutex_;
  std::map<std::string, NodePtr> nodes_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<std::string> learned_ TOWLINE_GUARDED_BY(mutex_);  // besides the seeds
  std::string primary_ TOWLINE_GUARDED_BY(mutex_);
  uint64_t primary_term_ TOWLINE_GUARDED_BY(mutex_) = 0;  // 0 = not known
  size_t next_read_ TOWLINE_GUARDED_BY(mutex_) = 0;
  v1::GetTopologyResponse topology_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_NODE_POOL_H_
