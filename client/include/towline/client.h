// The client of a Towline cluster: finds the primary and follows it, repeats what can be repeated, and reads what it
// has written from any node. docs/guides/client.md has an example that compiles.
//
// A failover or a switchover is a pause, not an error, as long as it ends before the call's deadline. Every write
// carries a request id, so that a repeated one is applied once.
//
// Errors are Abseil statuses with details (client_error.h). Those that say something about the request are returned at
// once: condition_failed, replication_timeout, invalid_..., record_too_large, request_too_old. Those of a node that
// cannot serve now (not_primary, switchover, queue_full, lost connections, ...) lead to another attempt, until the
// call's deadline.

#ifndef TOWLINE_CLIENT_H_
#define TOWLINE_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "towline/bookmark.h"
#include "towline/write_batcher.h"
#include "towline/write_set.h"

namespace towline {

namespace client {
class ClusterClient;
}  // namespace client

// Where reads go. Whatever it says, the primary is asked in the end if nobody else can answer.
enum class ReadPreference {
  kPrimary,     // the primary
  kAny,         // all nodes in turn
  kLocalFirst,  // the endpoints in the order in which they were given, then the other nodes
};

struct ClientOptions {
  std::vector<std::string> endpoints;  // HOST:PORT, one or more; other members are learned from these

  std::chrono::milliseconds timeout{30'000};         // of one call with all its attempts
  std::chrono::milliseconds attempt_timeout{5'000};  // of one attempt; writes wait longer by their durability's timeout
  std::chrono::milliseconds backoff_min{20};         // pause behind the first round of attempts, +- jitter
  std::chrono::milliseconds backoff_max{1'000};      // it doubles up to this
  int rounds_max = 0;  // rounds of attempts before giving up; 0 = until the deadline; 1 = no pause, no repetition
  bool follow = true;  // false: use no node but `endpoints`

  // Name in request ids, [a-z0-9][a-z0-9_-]{0,62}. Empty: a random one. A fixed name must not be used by two clients at
  // a time; its sequences begin at the wall clock's microseconds, so that they rise over restarts.
  std::string client_id;
  std::optional<WriteDurability> durability;  // of writes that do not say; absent = the primary's default

  ReadPreference read_preference = ReadPreference::kPrimary;
  bool session_reads = true;                     // reads see what this client has written and read before
  std::chrono::milliseconds bookmark_wait{250};  // how long a node may take to reach a bookmark before another is asked
};

// Of one call. What is absent is as in ClientOptions.
struct CallOptions {
  std::optional<std::chrono::milliseconds> timeout;
  std::optional<ReadPreference> read_preference;
  std::optional<Bookmark> at;                     // reads: the state must cover this, besides the session's position
  std::optional<std::chrono::milliseconds> wait;  // reads: instead of bookmark_wait, up to 30 s
};

struct WriteAnswer {
  Bookmark position;              // of the record; of a duplicate, of the one written first
  bool duplicate = false;         // the request id had been seen before, so that nothing was written now
  uint64_t committed_lsn = 0;     // highest LSN at the cluster's commit level, as of the answer
  uint32_t replicas_flushed = 0;  // counting replicas that hold the record durably
  uint32_t replicas_applied = 0;  // of these, those whose state shows it
  bool level_reached = true;      // false: less than asked for, where the writer accepts that
  std::string endpoint;           // of the primary that answered
};

struct KeyValue {
  std::string key;
  std::string value;
  uint64_t expire_at_ms = 0;  // Unix time from which the key no longer exists; 0 = never
  uint64_t modified_lsn = 0;  // LSN of the record that wrote it last
};

struct GetAnswer {
  std::optional<KeyValue> entry;  // absent: no such key
  Bookmark position;              // of the state that was read
  std::string endpoint;           // of the node that answered
};

struct BatchGetAnswer {
  std::vector<KeyValue> entries;  // in the order of the keys; those that do not exist are left out
  Bookmark position;
  std::string endpoint;
};

// Which keys a scan visits.
struct ScanRange {
  std::string prefix;
  std::string begin;        // inclusive; empty = from the first key
  std::string end;          // exclusive; empty = to the last key
  uint32_t page_limit = 0;  // entries per round trip, up to 10000; 0 = 1000
  bool pinned = false;      // all from one position; such a scan stays on one node and ends with it
};

// The entries of a range in key order. A scan that is not pinned goes on at another node if its own fails, and what it
// reads there is not older.
// Threads: external synchronization. Must not outlive its client.
class Scanner {
 public:
  virtual ~Scanner() = default;

  // Moves to the next entry, the first one to begin with; false at the end and after an error.
  virtual bool Next() = 0;
  virtual const KeyValue& entry() const = 0;       // after Next returned true
  virtual const absl::Status& status() const = 0;  // after Next returned false: OK at the end of the range
  virtual Bookmark position() const = 0;           // of the page that entry() is from
};

struct ClusterMember {
  std::string node_id;
  std::string address;  // HOST:PORT; empty = not known
  bool counting = false;
};

struct ClusterView {
  std::string cluster_id;
  uint64_t term = 0;
  std::string primary_node_id;
  std::string primary_address;
  std::vector<ClusterMember> members;
};

// Threads: all methods from any thread, as many at a time as one likes; each blocks its own thread only. One client per
// process is enough: it has one connection per node, made when it is needed. No call may be under way at its
// destruction.
class Client {
 public:
  // Does not connect yet. INVALID_ARGUMENT, reason invalid_endpoint, invalid_name or invalid_options.
  static absl::StatusOr<std::unique_ptr<Client>> Make(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // --- Writes. FateOf(error) says what is known of the record. ---

  absl::StatusOr<WriteAnswer> Put(absl::string_view key, absl::string_view value, const CallOptions& options = {});
  absl::StatusOr<WriteAnswer> Delete(absl::string_view key, const CallOptions& options = {});
  absl::StatusOr<WriteAnswer> Write(WriteSet writes, const CallOptions& options = {});

  // Many records over one stream, for throughput. Must not outlive the client.
  std::unique_ptr<WriteBatcher> NewBatcher(const BatcherOptions& options, OnRecordAnswer on_answer);

  // --- Reads. FAILED_PRECONDITION, reason position_discarded: what the session had seen was given up by a forced
  // failover; nothing is read before ResetSession. ---

  absl::StatusOr<GetAnswer> Get(absl::string_view key, const CallOptions& options = {});
  absl::StatusOr<BatchGetAnswer> BatchGet(const std::vector<std::string>& keys, const CallOptions& options = {});
  std::unique_ptr<Scanner> Scan(const ScanRange& range, const CallOptions& options = {});

  // --- The session: the newest position that this client has written or read. ---

  Bookmark session() const;  // hand it on as a token, so that another client reads what this one wrote
  // Reads from now on cover this, too.
  void JoinSession(const Bookmark& bookmark);
  // Forgets what was seen on a line that was given up: reads go on from the newest position that a node has answered.
  void ResetSession();

  // --- The cluster. ---

  // Asks the nodes; also finds the primary anew.
  absl::StatusOr<ClusterView> Topology(const CallOptions& options = {});
  // HOST:PORT of the primary as known now; empty = not known yet.
  std::string primary() const;
  const std::string& client_id() const;

 private:
  explicit Client(std::unique_ptr<client::ClusterClient> cluster);

  std::unique_ptr<client::ClusterClient> cluster_;
};

// "0.1.0"
std::string ClientVersion();

}  // namespace towline

#endif  // TOWLINE_CLIENT_H_
