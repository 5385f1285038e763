// The loops that make a node a primary: sequencer, its sink, expiry.

#ifndef TOWLINE_SERVER_PRIMARY_ROLE_H_
#define TOWLINE_SERVER_PRIMARY_ROLE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/control.h"
#include "primary/commit_tracker.h"
#include "primary/expirer.h"
#include "primary/flow_control.h"
#include "primary/sequencer.h"
#include "replica/generation.h"
#include "server/config.h"
#include "server/primary_sink.h"

namespace towline {

// From the opening of writes to their end; it is not opened again, another one follows. A stopped one still answers:
// its sequencer refuses.
// Threads: sequencer, sink and expired_total from any thread, Stop from one.
class PrimaryRole {
 public:
  // Writes the TERM_START of the newest term of `control`, unless the log holds it, and starts the loops. The
  // references must outlive it. Errors as Generation::AppendAndApply.
  static absl::StatusOr<std::unique_ptr<PrimaryRole>> Open(const GenerationEnvironment& env, const NodeConfig& config,
                                                           const Control& control, std::shared_ptr<Generation> live,
                                                           Standstill* standstill);

  // Answers what is queued and whoever waits, then ends the loops. Idempotent.
  void Stop();

  // See Sequencer. Nothing is appended any more when Close returns.
  void Pause(const absl::Status& status);
  void Unpause();
  // Whether everything that was taken is answered.
  bool drained() const;
  void Hold();
  void Release();
  void Close(const absl::Status& status);
  // Timeouts of waits and flow control. Call it every few hundredths of a second, from one thread.
  void Tick();

  Sequencer& sequencer() { return sequencer_; }
  PrimarySink& sink() { return sink_; }
  // Where writes wait for replicas once they are durable here.
  CommitTracker& commit() { return commit_; }
  FlowControl& flow() { return flow_; }
  uint64_t expired_total() const { return expirer_.deleted_total(); }

 private:
  PrimaryRole(const GenerationEnvironment& env, const NodeConfig& config, const Control& control,
              const std::shared_ptr<Generation>& live, Standstill* standstill);

  // In this order: expiry submits to the sequencer, which hands to the sink and whose answers wait in the tracker.
  const std::shared_ptr<Generation> live_;
  PrimarySink sink_;
  CommitTracker commit_;
  FlowControl flow_;
  Sequencer sequencer_;
  Expirer expirer_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_PRIMARY_ROLE_H_
