// One generation of a data directory: `gen/<n>/wal` and `gen/<n>/db`, opened, recovered and caught up.

#ifndef TOWLINE_REPLICA_GENERATION_H_
#define TOWLINE_REPLICA_GENERATION_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/control.h"
#include "common/data_layout.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "replica/rewind_checkpoints.h"
#include "store/applier.h"
#include "store/state_store.h"
#include "store/store.h"
#include "wal/spool.h"

namespace towline {

// What generations need from their process. The references must outlive every generation.
struct GenerationEnvironment {
  FileSystem& fs;
  Clock& clock;
  Rng& rng;
  Executor& executor;
  Logger& logger;
  StoreFactory& stores;
  std::string data_directory;
  wal::SpoolOptions spool_options;
  ApplierOptions applier_options;
  std::function<void(absl::Status)> on_fatal;  // a write, sync or apply failed for good; called from any loop
  RewindOptions rewind_options = {};           // by default no checkpoints are made
};

// Threads: all methods from any thread, as the parts allow.
class Generation {
 public:
  // Opens generation `control.generation`: recovers the log (watermarks: control's, `slot_watermarks`, the store's
  // persisted LSN), applies what the store lacks, and returns when the state has reached the durable end.
  // Creates the directories of a new generation (empty log behind control.base). `report` may be null.
  // DATA_LOSS: wal_corrupt; store_ahead, the store holds records that the log lacks; store_behind, the log no longer
  // holds what the store lacks; state_mismatch, they are of different histories. See docs/guides/recovery.md.
  static absl::StatusOr<std::unique_ptr<Generation>> Open(const GenerationEnvironment& env, const Control& control,
                                                          std::vector<wal::Watermark> slot_watermarks,
                                                          Lsn first_retained, wal::RecoveryReport* report);
  ~Generation();

  uint64_t number() const { return number_; }
  wal::Spool& spool() { return *spool_; }
  StateStore& state() { return *state_; }
  Applier& applier() { return *applier_; }
  RewindCheckpoints& checkpoints() { return *checkpoints_; }

  // Terms of the log as found at open: control's, and the TERM_STARTs in the log that control did not know of.
  const History& history_at_open() const { return history_at_open_; }

  // Appends the group to the log and hands it to the applier; `done` (may be empty) runs once it is applied.
  // `history` covers the log in front of the group; TERM_STARTs inside the group are added to it here. Errors as
  // Spool::Append; also DATA_LOSS, reason unknown_term, with nothing written.
  // Threads: one at a time.
  absl::Status AppendAndApply(std::shared_ptr<wal::FrameGroup> group, const History& history,
                              std::function<void()> done);

  // `fn` is called from the applier's loop after each batch, with the last applied LSN; it must be quick and must not
  // add or remove listeners. RemoveAppliedListener returns only when no call is running.
  uint64_t AddAppliedListener(std::function<void(Lsn)> fn) TOWLINE_EXCLUDES(listeners_mutex_);
  void RemoveAppliedListener(uint64_t id) TOWLINE_EXCLUDES(listeners_mutex_);

  // Stops the applier and flushes the store, so that the next start replays nothing. Idempotent.
  absl::Status Close() TOWLINE_EXCLUDES(close_mutex_);

 private:
  Generation() = default;
  absl::Status CheckState(const Control& control);
  absl::Status CatchUp();
  void NotifyApplied(Lsn lsn) TOWLINE_EXCLUDES(listeners_mutex_);

  uint64_t number_ = 0;
  History history_at_open_;

  Mutex listeners_mutex_;
  uint64_t next_listener_ TOWLINE_GUARDED_BY(listeners_mutex_) = 1;
  std::map<uint64_t, std::function<void(Lsn)>> listeners_ TOWLINE_GUARDED_BY(listeners_mutex_);

  // In this order: the checkpoints stop first, then the applier.
  std::unique_ptr<wal::Spool> spool_;
  std::unique_ptr<StateStore> state_;
  std::unique_ptr<Applier> applier_;
  std::unique_ptr<RewindCheckpoints> checkpoints_;

  Mutex close_mutex_;
  bool closed_ TOWLINE_GUARDED_BY(close_mutex_) = false;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_GENERATION_H_
