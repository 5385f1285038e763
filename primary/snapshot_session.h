// One stream of a snapshot: to a replica that must load one, or to be saved as a file.

#ifndef TOWLINE_PRIMARY_SNAPSHOT_SESSION_H_
#define TOWLINE_PRIMARY_SNAPSHOT_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "primary/replication_source.h"
#include "primary/snapshot_body.h"
#include "primary/snapshot_pool.h"
#include "primary/source_core.h"
#include "store/snapshot_codec.h"

namespace towline {

class SnapshotSessionImpl final : public SnapshotSession, public ServedSession {
 public:
  // What a stream reads, and for whom.
  struct Source {
    SharedSnapshotPtr snapshot;
    SnapshotCursor cursor;       // goes on behind it, if it is an RDB stream
    std::vector<HeldFile> held;  // leaves it out, if it is of files
    Position position;           // of the whole stream
    History history;             // up to there
    slots::Session slot;         // id 0 = none: the stream is saved as a file
    std::string reason;          // of the full resync
    std::string how;             // see ResyncCounters::snapshot_streams
  };

  // Takes over the place that was entered in the pool.
  SnapshotSessionImpl(SourceCore& core, Source source, std::function<void()> wake);
  ~SnapshotSessionImpl() override;

  NextResult Next(v1::FetchSnapshotResponse* out) override;
  absl::Status end_status() const override;
  void Close() override;

  void End(const absl::Status& status) override;
  uint64_t slot_session() const override { return source_.slot.id; }
  void OnTick(const TickView&) override;
  void OnNews() override {}
  void OnRetention() override;
  void OnInvalidated(const std::string& slot) override;
  bool HoldAgain(const std::string&) override { return false; }
  bool Describe(PeerStatus* status) const override;
  bool DescribeSnapshot(SnapshotSend* send) const override;

 private:
  enum class Phase { kHeader, kChunks, kOver };

  absl::Status TakeHeader(v1::FetchSnapshotResponse* out);
  absl::Status TakeChunk(v1::FetchSnapshotResponse* out);
  void TakeEnd(v1::FetchSnapshotResponse* out);
  absl::Status CheckSnapshot() const;
  std::string Name() const { return source_.slot.id == 0 ? "file" : source_.slot.slot; }

  SourceCore& core_;
  Source source_;
  const std::function<void()> wake_;
  const int64_t started_micros_;
  uint64_t key_ = 0;

  // Of the transport's calls, which do not overlap.
  Phase phase_ = Phase::kHeader;
  std::unique_ptr<SnapshotBody> body_;

  mutable Mutex mutex_;
  bool closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool ended_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool waits_ TOWLINE_GUARDED_BY(mutex_) = false;  // for the rate limit
  absl::Status end_status_ TOWLINE_GUARDED_BY(mutex_);
  SnapshotSend send_ TOWLINE_GUARDED_BY(mutex_);        // but for rate and time
  uint64_t sent_bytes_ TOWLINE_GUARDED_BY(mutex_) = 0;  // of send_.bytes, by this stream
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SNAPSHOT_SESSION_H_
