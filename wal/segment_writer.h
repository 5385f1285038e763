// The append path: writes groups into the newest segment, makes them durable, rolls to the next segment. Internal to
// wal.

#ifndef TOWLINE_WAL_SEGMENT_WRITER_H_
#define TOWLINE_WAL_SEGMENT_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "wal/index_store.h"
#include "wal/log_view.h"
#include "wal/spare_pool.h"

namespace towline::wal {

// Counters of the append path since open.
struct AppendStats {
  uint64_t records = 0;
  uint64_t bytes = 0;
  uint64_t groups = 0;
  uint64_t fsyncs = 0;
  double fsync_seconds_sum = 0;
  std::vector<float> fsync_recent_seconds;
  bool poisoned = false;
  bool disk_full = false;
};

// Invariants: the frames in front of offset_ are durable, and everything behind them in the file is of no account.
// Threads: one at a time, but for stats().
class SegmentWriter {
 public:
  struct Options {
    std::string directory;
    ClusterId cluster_id;
    uint64_t generation = 1;
    uint64_t index_interval_bytes = 64 << 10;
    std::function<void(Lsn)> published;  // called after each publish
    std::function<void()> rolled;        // called after each roll
  };

  SegmentWriter(FileSystem& fs, Clock& clock, Rng& rng, Logger& logger, Options options, LogView& view,
                IndexStore& indexes, SparePool& spares);

  // Goes on with the view's newest segment, which is open as `file`. `footer_written`: it takes no more frames.
  void Resume(std::unique_ptr<File> file, IndexEntries index, bool footer_written);

  // Makes the first or the next segment, if that is due, so that a full disk shows now. Same errors as Append.
  absl::Status Prepare();

  // Writes and syncs `group`, then publishes it to the view. See Spool::Append.
  absl::Status Append(const std::shared_ptr<FrameGroup>& group);

  AppendStats stats() const TOWLINE_EXCLUDES(mutex_);

 private:
  // A file with a durable header that is not in the log yet.
  struct Successor {
    std::string path;
    std::unique_ptr<File> file;
    SegmentHeader header;
    bool spare = false;  // of the standard size
  };

  bool Fits(uint64_t frame_bytes) const;
  absl::Status WriteFrames(FrameGroup* group);
  // Makes the group, which now ends at `end_offset`, visible.
  void Publish(const std::shared_ptr<FrameGroup>& group, uint64_t end_offset);
  // Ends the newest segment and starts one that takes `frame_bytes`.
  absl::Status Roll(uint64_t frame_bytes);
  absl::Status WriteFooter();
  absl::StatusOr<Successor> MakeSuccessor(uint64_t frame_bytes);
  // A zero-filled or recycled file of at least `size` bytes.
  absl::StatusOr<Successor> OpenBlank(uint64_t size);
  absl::Status Install(Successor successor);

  absl::Status Sync(File& file);
  // Remembers that the log cannot be written any more, and why.
  absl::Status Poison(const absl::Status& cause);
  absl::Status DiskFull(const absl::Status& cause);

  FileSystem& fs_;
  Clock& clock_;
  Rng& rng_;
  Logger& logger_;
  const Options options_;
  LogView& view_;
  IndexStore& indexes_;
  SparePool& spares_;

  std::unique_ptr<File> file_;  // nullptr: there is no segment yet
  SegmentHeader header_;
  uint64_t log_start_ = 0;
  uint64_t offset_ = 0;  // behind the last durable frame
  LogEnd end_;
  bool footer_written_ = false;
  IndexEntries index_;  // of the newest segment
  absl::Status poison_;

  mutable Mutex mutex_;
  AppendStats stats_ TOWLINE_GUARDED_BY(mutex_);
  size_t next_sample_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SEGMENT_WRITER_H_
