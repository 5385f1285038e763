#include "server/primary_sink.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "store/applier.h"

namespace towline {
namespace {

// Disk space that writes leave to the store's compactions; less on a small disk.
constexpr uint64_t kSpareBytes = 64 << 20;

}  // namespace

PrimarySink::PrimarySink(FileSystem& fs, std::string directory, std::shared_ptr<Generation> generation, History history)
    : fs_(fs), directory_(std::move(directory)), generation_(std::move(generation)), history_(std::move(history)) {}

wal::LogEnd PrimarySink::End() { return generation_->spool().end(); }

absl::Status PrimarySink::AppendAndApply(std::shared_ptr<wal::FrameGroup> group, std::function<void()> applied) {
  TOWLINE_RETURN_IF_ERROR(CheckSpace());
  return generation_->AppendAndApply(std::move(group), history_, std::move(applied));
}

bool PrimarySink::Stuck() const { return generation_->applier().waits_for_disk(); }

void PrimarySink::LookForSpace() {
  if (refused()) CheckSpace().IgnoreError();
}

// A record that is acknowledged must be applied, so there has to be room for what the store holds in memory, with
// something to spare for its compactions.
absl::Status PrimarySink::CheckSpace() {
  TOWLINE_ASSIGN_OR_RETURN(const SpaceInfo space, fs_.Space(directory_));
  const uint64_t unflushed = generation_->applier().unflushed_bytes();
  const uint64_t reserve = unflushed + unflushed / 4 + std::min(kSpareBytes, space.total_bytes / 16);
  const bool refused = Stuck() || space.available_bytes < reserve;
  refused_.store(refused, std::memory_order_relaxed);
  if (!refused) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "disk_full",
                   absl::StrCat(space.available_bytes, " bytes are free, and the store needs ", reserve,
                                " for what it has still to write"),
                   "free space on the disk of the data directory, then retry");
}

}  // namespace towline
