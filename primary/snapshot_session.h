// One FetchSnapshot stream: the state at one position, while writes go on.

#ifndef TOWLINE_PRIMARY_SNAPSHOT_SESSION_H_
#define TOWLINE_PRIMARY_SNAPSHOT_SESSION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "primary/replication_source.h"
#include "primary/source_core.h"
#include "store/snapshot_codec.h"

namespace towline {

class SnapshotSessionImpl final : public SnapshotSession, public ServedSession {
 public:
  // Plans, takes the slot and makes it hold the log from the applied position on. Errors as
  // ReplicationSource::NewSnapshotSession.
  static absl::StatusOr<std::unique_ptr<SnapshotSession>> Open(SourceCore& core, const ResumeRequest& request);
  ~SnapshotSessionImpl() override;

  NextResult Next(v1::FetchSnapshotResponse* out) override;
  absl::Status end_status() const override;
  void Close() override;

  void End(const absl::Status& status) override;
  uint64_t slot_session() const override { return session_.id; }
  void OnTick(const TickView&) override {}
  void OnNews() override {}
  void OnRetention() override;
  void OnInvalidated(const std::string&) override {}
  bool HoldAgain(const std::string&) override { return false; }
  bool Describe(PeerStatus* status) const override;

 private:
  enum class Phase { kHeader, kChunks, kOver };

  SnapshotSessionImpl(SourceCore& core, Resumption resumption, slots::Session session, int64_t started_micros);

  absl::Status TakeHeader(v1::FetchSnapshotResponse* out);
  absl::Status TakeChunk(v1::FetchSnapshotResponse* out);
  void TakeEnd(v1::FetchSnapshotResponse* out);

  SourceCore& core_;
  Resumption resumption_;
  const slots::Session session_;
  const int64_t started_micros_;
  uint64_t key_ = 0;

  // Of the transport's calls, which do not overlap.
  Phase phase_ = Phase::kHeader;
  std::optional<SnapshotEncoder> encoder_;
  Lsn snapshot_lsn_ = 0;

  mutable Mutex mutex_;
  bool closed_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool ended_ TOWLINE_GUARDED_BY(mutex_) = false;
  absl::Status end_status_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_SNAPSHOT_SESSION_H_
