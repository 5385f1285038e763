// Where a primary's groups go: its log, then its state.

#ifndef TOWLINE_SERVER_PRIMARY_SINK_H_
#define TOWLINE_SERVER_PRIMARY_SINK_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "common/file_system.h"
#include "common/history.h"
#include "primary/sequencer.h"
#include "replica/generation.h"

namespace towline {

// Threads: refused and LookForSpace from any thread, the rest as GroupSink says.
class PrimarySink final : public GroupSink {
 public:
  // `directory`: the data directory, of whose disk groups leave a part free.
  PrimarySink(FileSystem& fs, std::string directory, std::shared_ptr<Generation> generation, History history);

  wal::LogEnd End() override;
  absl::Status AppendAndApply(std::shared_ptr<wal::FrameGroup> group, std::function<void()> applied) override;
  // What was appended is not applied for now, because the disk is full. New groups are refused.
  bool Stuck() const;

  // Whether the last group was refused for want of space.
  bool refused() const { return refused_.load(std::memory_order_relaxed); }
  // Takes a refusal back when there is space again.
  void LookForSpace();

 private:
  absl::Status CheckSpace();

  FileSystem& fs_;
  const std::string directory_;
  const std::shared_ptr<Generation> generation_;
  const History history_;
  std::atomic<bool> refused_{false};
};

}  // namespace towline

#endif  // TOWLINE_SERVER_PRIMARY_SINK_H_
