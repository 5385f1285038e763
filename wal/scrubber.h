// Reads sealed segments again and again, slowly, and finds what the disk has damaged. Internal to wal.

#ifndef TOWLINE_WAL_SCRUBBER_H_
#define TOWLINE_WAL_SCRUBBER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "wal/damage_list.h"
#include "wal/frame_reader.h"
#include "wal/index_store.h"
#include "wal/log_view.h"
#include "wal/spool.h"

namespace towline::wal {

// A pass checks every sealed segment once: header, footer, all records and their chain, and the index, which is made
// anew if it is wrong. What is damaged goes to the damage list; the pass goes on behind it at the next index entry.
// Threads: Step from one thread; stats from any.
class Scrubber {
 public:
  Scrubber(SpoolEnvironment env, std::string directory, const SpoolOptions& options, LogView& view, IndexStore& indexes,
           DamageList& damages, std::function<void()> index_queued);

  bool enabled() const { return bytes_per_second_ > 0; }

  // Reads one piece. Requires enabled().
  StepResult Step() TOWLINE_EXCLUDES(mutex_);

  ScrubStats stats() const TOWLINE_EXCLUDES(mutex_);

 private:
  // The segment that is being read.
  struct Reading {
    SegmentSpan span;
    std::shared_ptr<File> file;
    std::optional<FrameReader> reader;
    SharedIndex index;      // its seek index as it was; nullptr = none that can be used
    size_t next_entry = 0;  // of *index, that no frame has matched yet
    IndexEntries seen;      // index of what was read
    std::vector<DamagedRange> damages;
  };

  // False if there is no segment left to read.
  bool NextSegment();
  void CheckEnds();
  // Reads frames up to about `bytes` further. True at the end of the segment.
  bool ReadFrames(uint64_t bytes);
  // Goes on behind a damage. False if nothing behind it can be found.
  bool SkipDamage(const absl::Status& damage);
  void AddDamage(DamagedRange range);
  // The whole segment is damaged; `readable`: in its header or footer only.
  void AddSegmentDamage(const absl::Status& damage, bool readable);
  void FinishSegment();
  void FinishPass();

  const SpoolEnvironment env_;
  const std::string directory_;
  const uint64_t bytes_per_second_;
  const uint64_t index_interval_;
  const int64_t interval_micros_;
  LogView& view_;
  IndexStore& indexes_;
  DamageList& damages_;
  const std::function<void()> index_queued_;  // somebody has to call IndexStore::WriteOne

  bool in_pass_ = false;
  int64_t pass_start_ = 0;  // monotonic
  Lsn next_lsn_ = 0;        // the pass goes on with the segment that holds it or begins behind it
  std::unique_ptr<Reading> reading_;
  std::string buffer_;
  ScrubStats pass_;  // of the pass under way: its last_pass_* fields

  mutable Mutex mutex_;
  ScrubStats stats_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SCRUBBER_H_
