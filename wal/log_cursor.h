// The cursor of the spool. Internal to wal.

#ifndef TOWLINE_WAL_LOG_CURSOR_H_
#define TOWLINE_WAL_LOG_CURSOR_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "wal/damage_list.h"
#include "wal/log_view.h"
#include "wal/seeker.h"
#include "wal/spool.h"

namespace towline::wal {

// Reads from the groups in memory while it can, else from disk.
// Threads: external synchronization.
class LogCursor : public Cursor {
 public:
  LogCursor(LogView& view, Seeker& seeker, DamageList& damages, const LogEnd& before)
      : view_(view), seeker_(seeker), damages_(damages), at_(before) {}
  LogCursor(LogView& view, Seeker& seeker, DamageList& damages, Place place)
      : view_(view), seeker_(seeker), damages_(damages), at_(place.before), place_(std::move(place)) {}

  absl::StatusOr<ShippedBatch> Next(size_t max_bytes) override;
  Lsn next_lsn() const override { return at_.lsn + 1; }

 private:
  ShippedBatch FromMemory(size_t max_bytes);
  absl::StatusOr<ShippedBatch> FromDisk(size_t max_bytes);
  // Makes place_ where the next record starts, with the segment's present end.
  absl::Status FindPlace();
  // What an error at the disk means to the caller.
  absl::Status Explain(const absl::Status& status) const;

  LogView& view_;
  Seeker& seeker_;
  DamageList& damages_;
  LogEnd at_;  // in front of the next record
  std::vector<std::shared_ptr<const FrameGroup>> groups_;
  // While reading from disk:
  std::optional<Place> place_;  // pins the segment; `before` is not used
  std::shared_ptr<File> file_;
  std::string buffer_;
};

}  // namespace towline::wal

#endif  // TOWLINE_WAL_LOG_CURSOR_H_
