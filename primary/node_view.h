// What the serving side of replication needs to know of its node, and says to it.

#ifndef TOWLINE_PRIMARY_NODE_VIEW_H_
#define TOWLINE_PRIMARY_NODE_VIEW_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "common/file_system.h"
#include "common/types.h"
#include "primary/commit_level.h"
#include "slots/slot_table.h"
#include "store/applier.h"
#include "store/state_store.h"
#include "wal/spool.h"

namespace towline {

// A consistent copy of the node's identity and standing.
struct NodeView {
  std::string node_id;
  uint64_t incarnation = 0;
  ClusterId cluster_id;
  bool is_primary = false;
  bool starting = false;  // or halted: refuse with retry
  bool exact = true;
  Term term = 0;    // current term
  History history;  // of the live log, up to its durable end
  Position base;    // the live log begins behind it
  MemberList members;
  std::string primary_address;  // empty = not known
  uint64_t data_generation = 0;
  // Node ids from its upstream to the primary, as the upstream told last; empty on a primary, or if not known.
  std::vector<std::string> upstream_path;
};

// The newest heartbeat of the primary, as made here or forwarded.
struct HeartbeatInfo {
  uint64_t sequence = 0;  // 0 = none yet
  Lsn durable_lsn = 0;
  Lsn committed_lsn = 0;
  int64_t made_micros = 0;  // this node's monotonic clock when it was made or arrived
};

// Where snapshots of a store's files are made, and what they are (StoreFactory::file_form).
struct FileSnapshotPlace {
  FileSystem& fs;
  std::string directory;
  std::string form;
};

// One open generation: a log and the state that belongs to it. The parts live as long as the object.
class LogAndState {
 public:
  virtual ~LogAndState() = default;
  virtual uint64_t number() const = 0;
  virtual wal::Spool& spool() = 0;
  virtual StateStore& state() = 0;
  virtual Applier& applier() = 0;
  // nullopt = the store's files are not sent.
  virtual std::optional<FileSnapshotPlace> file_snapshots() const { return std::nullopt; }
};

// What an exact replica, on a slot of its own, has confirmed on its session.
struct ReplicaAck {
  std::string node_id;
  uint64_t incarnation = 0;
  uint64_t session_id = 0;
  Term term = 0;  // of the ack
  Lsn flushed_lsn = 0;
  Lsn applied_lsn = 0;
};

// The node, as the serving side sees it.
// Threads: all methods from any thread.
class SourceHost {
 public:
  virtual ~SourceHost() = default;

  virtual NodeView View() = 0;

  // The live generation; nullptr if there is none yet. Holding the pointer keeps it open.
  virtual std::shared_ptr<LogAndState> Live() = 0;

  // A replica attached: the primary adds or updates it as a member. Without `knows_members` its log may begin behind
  // the record that names them, and the primary writes that again.
  virtual void OnReplicaAttached(const MemberInfo& member, bool knows_members) = 0;

  // A replica has confirmed records. Called from a session, without locks held.
  virtual void OnReplicaAck(const ReplicaAck& ack) = 0;

  // Its session is over. Called under locks of the session; must not block.
  virtual void OnReplicaGone(const std::string& node_id, uint64_t session_id) = 0;

  // The last stage of replicas that writes wait for, or are about to; nullopt = none.
  virtual std::optional<CommitStage> WritersWait() = 0;

  // Highest LSN that meets the cluster's commit level, as known here.
  virtual Lsn CommittedLsn() = 0;

  // Somebody showed a higher term than `judged`, or holds more of it than we do. `judged` is the term in which this
  // node was found the primary: what is in a newer one by now is not meant. Called from a session; must not block.
  virtual void OnStaleSelf(Term judged, absl::string_view reason, absl::string_view message) = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_NODE_VIEW_H_
