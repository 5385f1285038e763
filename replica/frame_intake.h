// Frames from an upstream, checked and grouped for one append.
//
// Checked per message, before anything of it is taken: that it follows what was taken before (LSN, previous chain),
// payload CRCs, the announced last LSN and chain, that terms do not fall and begin with a TERM_START of our cluster.

#ifndef TOWLINE_REPLICA_FRAME_INTAKE_H_
#define TOWLINE_REPLICA_FRAME_INTAKE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "towline/v1/replication_service.pb.h"
#include "wal/frame.h"

namespace towline {

// Frames for one append, and what they change besides the state.
struct IntakeGroup {
  std::shared_ptr<wal::FrameGroup> frames;
  std::optional<std::string> term_primary;  // node id in the last TERM_START record in it
  std::optional<MemberList> members;        // of the last Members record in it
};

// Threads: external synchronization.
class FrameIntake {
 public:
  // Continues the log behind `end`, whose terms are `history`.
  FrameIntake(const wal::LogEnd& end, History history, ClusterId cluster_id);

  // Takes all frames of a message, or keeps a fragment until its frame is complete. After an error nothing of the
  // message was taken and the stream is of no use: DATA_LOSS, reason bad_frame, lsn_gap, chain_mismatch, bad_fragment,
  // bad_term_start, bad_members, unknown_term or cluster_mismatch.
  absl::Status Add(const v1::FrameBatch& batch);

  // Bytes, in frames, of the group so far. Fragments do not count.
  size_t bytes() const { return builder_.bytes(); }
  bool empty() const { return builder_.empty(); }

  // End of the log with the group so far, and its terms.
  const wal::LogEnd& end() const { return builder_.end(); }
  const History& history() const { return history_; }

  // The group; the next one goes on behind it. Requires !empty().
  IntakeGroup Finish();

 private:
  // What a message would change.
  struct Checked {
    wal::LogEnd end;
    History history;
    std::optional<std::string> term_primary;
    std::optional<MemberList> members;
  };

  absl::Status AddFragment(const v1::FrameBatch& batch);
  absl::Status AddWhole(const v1::FrameBatch& batch, absl::string_view shipped);
  absl::Status CheckFrame(const wal::ShippedFrame& frame, Checked* checked) const;

  const ClusterId cluster_id_;
  wal::GroupBuilder builder_;
  History history_;
  IntakeGroup group_;  // without its frames
  std::string fragments_;
  uint64_t fragments_total_ = 0;  // 0 = none is open
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_FRAME_INTAKE_H_
