// A replica's life: connect, resume or load a snapshot, append, apply, acknowledge.
//
// One loop does it all: read frames, check them (LSN, previous chain, CRCs), append and fdatasync to the own log, hand
// them to the applier, acknowledge. The applier runs on its own loop.

#ifndef TOWLINE_REPLICA_REPLICA_CONTROLLER_H_
#define TOWLINE_REPLICA_REPLICA_CONTROLLER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"

#include "common/control.h"
#include "common/mutex.h"
#include "replica/generation.h"
#include "replica/upstream.h"
#include "replica/upstream_path.h"
#include "slots/slot_copies.h"

namespace towline {

// Progress of a snapshot load, over all of its streams.
struct BootstrapProgress {
  std::string phase;  // loading, replaying, waiting
  std::string reason;
  Lsn lsn = 0;  // of the snapshot
  Lsn exact_from_lsn = 0;
  uint64_t keys = 0;   // taken
  uint64_t bytes = 0;  // of the RDB stream, taken
  uint64_t durable_bytes = 0;
  uint64_t estimated_keys = 0;
  uint64_t estimated_bytes = 0;
  uint64_t received_bytes = 0;  // with those that came again
  uint64_t resumes = 0;
  double bytes_per_second = 0;  // over the last seconds
  uint64_t started_unix_ms = 0;
};

// A rewind that this node made.
struct RewindReport {
  Lsn common_lsn = 0;      // where the state went back to
  Lsn old_lsn = 0;         // where the log ended before
  Lsn checkpoint_lsn = 0;  // from which the log was replayed
  uint64_t discarded_records = 0;
  std::string quarantine_file;  // name of the file that holds them
  double seconds = 0;
};

// Since the process started.
struct RewindTotals {
  uint64_t rewinds = 0;
  uint64_t discarded_records = 0;
  uint64_t not_possible = 0;  // times that a snapshot was loaded instead
  RewindReport last;          // if there were any
};

struct ReplicaStatusView {
  // streaming, catching_up, bootstrapping, rewinding, stalled, disconnected, halted.
  std::string state = "disconnected";
  std::string upstream_state =
      "connecting";              // connecting, streaming, bootstrapping, rewinding, refused, retry_after, disconnected
  std::string message;           // last decision or error, for people
  std::string halt_reason;       // stable reason while halted; empty otherwise
  Lsn upstream_durable_lsn = 0;  // from the newest heartbeat
  Lsn upstream_committed_lsn = 0;
  uint64_t heartbeat_sequence = 0;
  std::string primary_address;  // as the upstream told; empty = not known
  std::optional<BootstrapProgress> bootstrap;
  uint64_t partial_resyncs = 0;  // as this node saw them, by decision
  uint64_t full_resyncs = 0;
  RewindTotals rewinds;
  uint64_t bootstrap_resumes = 0;      // streams that went on behind a cut
  uint64_t bootstrap_restarts = 0;     // loads that were begun again
  uint64_t bootstrap_bytes = 0;        // of chunks received
  uint64_t bootstrap_bytes_again = 0;  // of them, what had been received before
  double bootstrap_seconds = 0;        // of the last load that was finished; 0 = none was
};

// The node, as the replica's controller sees it.
// Threads: all methods are called from the controller's loop; implementations lock for themselves.
class ReplicaHost {
 public:
  virtual ~ReplicaHost() = default;

  virtual ControlFile& control() = 0;

  // The live generation; nullptr before the first attach.
  virtual std::shared_ptr<Generation> LiveGeneration() = 0;

  // `generation` is live from now on (control has been written). The old one stays open while readers hold it and is
  // removed afterwards.
  virtual void SwitchGeneration(std::shared_ptr<Generation> generation) = 0;

  // From the decision that the node goes back until it has, or will not: the records that it is about to give up must
  // not be served to others.
  virtual void SetRewinding(bool /*rewinding*/) {}

  // A heartbeat of the primary arrived.
  virtual void OnHeartbeat(uint64_t sequence, Lsn durable_lsn, Lsn committed_lsn) = 0;

  // What the upstream, on a stream of `copies.term`, tells of the primary's slots. Must not wait for the disk.
  virtual void OnSlotCopies(const slots::SlotCopies& copies) = 0;

  // The upstream's path to the primary, itself first, as it tells it; called for every telling.
  virtual void OnUpstreamPath(const UpstreamPath& path) = 0;

  // For generations that the controller opens.
  virtual const GenerationEnvironment& environment() = 0;

  // Held over an append together with the look at the promised term before it, and over the making of a promise: what
  // is flushed behind a promise is of no older term.
  virtual Mutex& fence_gate() = 0;
};

struct ReplicaOptions {
  std::string node_id;
  std::string advertised_address;
  uint64_t process_instance = 0;
  std::string file_form;  // of store files that it takes over (StoreFactory::file_form); empty = RDB only
  uint64_t credit_bytes = 8ull << 20;
  size_t group_bytes_max = 1 << 20;              // most bytes in one append
  uint64_t apply_queue_max_bytes = 64ull << 20;  // stop reading while the applier is this far behind
  int64_t reconnect_min_micros = 50'000;
  int64_t reconnect_max_micros = 5'000'000;
  int64_t halted_retry_max_micros = 30'000'000;
  int64_t upstream_timeout_micros = 15'000'000;  // no message for so long: reconnect
  int64_t stall_timeout_micros = 10'000'000;
};

// Threads: status from any thread; Step is called by the executor's loop.
class ReplicaController {
 public:
  virtual ~ReplicaController() = default;

  // One bounded piece of work: connect, or read and process what arrived.
  virtual StepResult Step() = 0;

  virtual ReplicaStatusView Status() const = 0;

  // Asks for a full resync though the log would do. False if one is on its way already.
  virtual bool RequestBootstrap() = 0;

  // Ends the present stream, if any, and connects again without a pause: the upstream may be another one now.
  virtual void Reconnect() = 0;

  // Makes a waiting Step return soon; no new connection afterwards. Call before the loop is stopped.
  virtual void Shutdown() = 0;
};

std::unique_ptr<ReplicaController> NewReplicaController(ReplicaHost& host, Upstream& upstream, ReplicaOptions options);

}  // namespace towline

#endif  // TOWLINE_REPLICA_REPLICA_CONTROLLER_H_
