// The live generation as the serving side of replication sees it.

#ifndef TOWLINE_SERVER_SERVED_GENERATION_H_
#define TOWLINE_SERVER_SERVED_GENERATION_H_

#include <memory>
#include <optional>
#include <utility>

#include "primary/node_view.h"
#include "replica/generation.h"

namespace towline {

// Threads: all methods from any thread.
class ServedGeneration final : public LogAndState {
 public:
  ServedGeneration(std::shared_ptr<Generation> generation, std::optional<FileSnapshotPlace> file_snapshots)
      : generation_(std::move(generation)), file_snapshots_(std::move(file_snapshots)) {}

  uint64_t number() const override { return generation_->number(); }
  wal::Spool& spool() override { return generation_->spool(); }
  StateStore& state() override { return generation_->state(); }
  Applier& applier() override { return generation_->applier(); }
  std::optional<FileSnapshotPlace> file_snapshots() const override { return file_snapshots_; }

  const std::shared_ptr<Generation>& generation() const { return generation_; }

 private:
  const std::shared_ptr<Generation> generation_;
  const std::optional<FileSnapshotPlace> file_snapshots_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_SERVED_GENERATION_H_
