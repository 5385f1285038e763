#include "replica/frame_intake.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "common/error.h"
#include "replica/log_history.h"

namespace towline {
namespace {

absl::Status Bad(absl::string_view reason, absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, reason, what);
}

constexpr uint64_t kShippedSizeMax = wal::kShippedHeaderSize + uint64_t{wal::kPayloadSizeMax};
// A fragmented frame's announced size is trusted up to here before its bytes arrive.
constexpr uint64_t kFragmentReserve = 1 << 20;

}  // namespace

FrameIntake::FrameIntake(const wal::LogEnd& end, History history, ClusterId cluster_id)
    : cluster_id_(std::move(cluster_id)), builder_(end), history_(std::move(history)) {}

absl::Status FrameIntake::Add(const v1::FrameBatch& batch) {
  if (batch.fragment_total() != 0) return AddFragment(batch);
  if (fragments_total_ != 0) {
    return Bad("bad_fragment", absl::StrCat("LSN ", batch.first_lsn(), " arrived after ", fragments_.size(), " of ",
                                            fragments_total_, " bytes of a fragmented frame"));
  }
  return AddWhole(batch, batch.frames());
}

absl::Status FrameIntake::AddFragment(const v1::FrameBatch& batch) {
  const uint64_t total = fragments_total_ == 0 ? batch.fragment_total() : fragments_total_;
  if (batch.fragment_total() != total || total > kShippedSizeMax || batch.fragment_offset() != fragments_.size() ||
      batch.frames().empty() || batch.frames().size() > total - fragments_.size() ||
      batch.first_lsn() != batch.last_lsn() || batch.first_lsn() != end().lsn + 1) {
    return Bad("bad_fragment",
               absl::StrCat("fragment of LSN ", batch.first_lsn(), ", ", batch.frames().size(), " bytes at ",
                            batch.fragment_offset(), " of ", batch.fragment_total(), ", does not follow ",
                            fragments_.size(), " of ", total, " bytes of LSN ", end().lsn + 1));
  }
  if (fragments_total_ == 0) fragments_.reserve(std::min(total, kFragmentReserve));
  fragments_total_ = total;
  fragments_.append(batch.frames());
  if (fragments_.size() < total) return absl::OkStatus();

  fragments_total_ = 0;
  const std::string shipped = std::exchange(fragments_, {});
  return AddWhole(batch, shipped);
}

absl::Status FrameIntake::AddWhole(const v1::FrameBatch& batch, absl::string_view shipped) {
  Checked checked{end(), history_, std::nullopt, std::nullopt};
  if (shipped.empty() || batch.first_lsn() != end().lsn + 1) {
    return Bad("lsn_gap", absl::StrCat("received ", shipped.size(), " bytes from LSN ", batch.first_lsn(),
                                       " on, behind LSN ", end().lsn));
  }
  const absl::Status frames =
      wal::ForEachShipped(shipped, [&](const wal::ShippedFrame& frame) { return CheckFrame(frame, &checked); });
  if (!frames.ok()) {
    return absl::IsDataLoss(frames) ? frames : Bad("bad_frame", GetErrorInfo(frames).message);
  }
  if (checked.end.lsn != batch.last_lsn() || checked.end.chain != batch.chain_after()) {
    return Bad("chain_mismatch",
               absl::StrCat("the message ends with LSN ", checked.end.lsn, ", chain ", absl::Hex(checked.end.chain),
                            "; announced were LSN ", batch.last_lsn(), ", chain ", absl::Hex(batch.chain_after())));
  }
  while (!shipped.empty()) {
    const absl::StatusOr<size_t> size = builder_.AddShipped(shipped);
    TOWLINE_CHECK(size.ok());  // all of it was checked above
    shipped.remove_prefix(*size);
  }
  history_ = std::move(checked.history);
  if (checked.term_primary.has_value()) group_.term_primary = std::move(checked.term_primary);
  if (checked.members.has_value()) group_.members = std::move(checked.members);
  return absl::OkStatus();
}

// Checks that `frame` continues checked->end, and moves that behind it.
absl::Status FrameIntake::CheckFrame(const wal::ShippedFrame& frame, Checked* checked) const {
  const wal::ShippedHeader& header = frame.header;
  const wal::LogEnd& before = checked->end;
  if (header.lsn != before.lsn + 1) {
    return Bad("lsn_gap", absl::StrCat("received LSN ", header.lsn, " behind LSN ", before.lsn));
  }
  if (header.prev_chain != before.chain) {
    return Bad("chain_mismatch", absl::StrCat("LSN ", header.lsn, " follows chain ", absl::Hex(header.prev_chain),
                                              ", the log ends with ", absl::Hex(before.chain)));
  }
  if (header.term == 0 || header.term < before.term || header.commit_time_us < before.commit_time_us) {
    return Bad("bad_frame",
               absl::StrCat("LSN ", header.lsn, ": term ", header.term, " and commit time ", header.commit_time_us,
                            " follow term ", before.term, " and commit time ", before.commit_time_us));
  }
  if (header.type == wal::RecordType::kTermStart) {
    TOWLINE_ASSIGN_OR_RETURN(const TermStartRecord start, DecodeTermStart(header.lsn, frame.payload));
    if (start.entry.term != header.term || header.term == before.term) {
      return Bad("bad_term_start", absl::StrCat("LSN ", header.lsn, " of term ", header.term, " starts term ",
                                                start.entry.term, " behind term ", before.term));
    }
    if (start.cluster_id != cluster_id_) {
      return Bad("cluster_mismatch", absl::StrCat("LSN ", header.lsn, " starts a term of cluster ", start.cluster_id,
                                                  ", ours is ", cluster_id_));
    }
    MergeEntry(start.entry, &checked->history);
    checked->term_primary = start.node_id;
  } else if (header.type == wal::RecordType::kMembers) {
    TOWLINE_ASSIGN_OR_RETURN(checked->members, DecodeMembers(frame.payload));
  }
  checked->end = {header.lsn, header.term, frame.chain(), header.commit_time_us};
  return PositionAt(checked->history, checked->end).status();
}

IntakeGroup FrameIntake::Finish() {
  group_.frames = builder_.Finish();
  return std::exchange(group_, {});
}

}  // namespace towline
