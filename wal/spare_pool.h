// Segment files made ahead of use, filled with zeros (or with what a removed segment held), and the loop that makes
// them. Overwriting such a file costs half of what appending to a growing one costs. They are filled past the page
// cache. Internal to wal.

#ifndef TOWLINE_WAL_SPARE_POOL_H_
#define TOWLINE_WAL_SPARE_POOL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/executor.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"

namespace towline::wal {

// Threads: Step from one thread at a time; everything else from any thread.
class SparePool {
 public:
  SparePool(FileSystem& fs, std::string directory, uint64_t segment_bytes, int wanted, Logger& logger);

  uint64_t segment_bytes() const { return segment_bytes_; }
  bool makes_spares() const { return wanted_ != 0; }

  // Numbers above `number` are free for new files.
  void ReserveNumbers(uint64_t number) TOWLINE_EXCLUDES(mutex_);
  uint64_t NextNumber() TOWLINE_EXCLUDES(mutex_);

  // A ready spare; the caller owns the file from now on.
  std::optional<std::string> Take() TOWLINE_EXCLUDES(mutex_);

  // Adds a file whose name as a spare is durable.
  void Add(std::string path) TOWLINE_EXCLUDES(mutex_);

  uint64_t ready() const TOWLINE_EXCLUDES(mutex_);
  // Whether a removed segment is welcome besides the ready ones and `more`: where segments go as fast as they come, so
  // many are kept of them that none has to be filled.
  bool TakesRecycled(size_t more) const TOWLINE_EXCLUDES(mutex_);

  // Makes a file of `size` zero bytes under a tmp name, not synced. RESOURCE_EXHAUSTED if there is no space; the file
  // is then gone again.
  absl::StatusOr<std::string> CreateFilled(uint64_t size);

  // Does a piece of work towards the wanted number of spares.
  StepResult Step();

 private:
  // The spare that is being made.
  struct Filling {
    std::string path;
    std::unique_ptr<File> file;
    uint64_t filled = 0;
  };

  bool NeedsMore() const TOWLINE_EXCLUDES(mutex_);
  absl::Status FillPiece();
  absl::Status FinishFilling();
  void GiveUp(const absl::Status& status);

  FileSystem& fs_;
  const std::string directory_;
  const uint64_t segment_bytes_;
  const size_t wanted_;
  Logger& logger_;
  std::optional<Filling> filling_;  // of the loop
  bool failing_ = false;            // the last attempt failed and was logged; of the loop
  mutable Mutex mutex_;
  std::deque<std::string> ready_ TOWLINE_GUARDED_BY(mutex_);
  uint64_t last_number_ TOWLINE_GUARDED_BY(mutex_) = 0;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_SPARE_POOL_H_
