// A snapshot stream that is read ahead on a loop of its own, so that what was received goes to the disk while the next
// arrives.

#ifndef TOWLINE_SERVER_READ_AHEAD_H_
#define TOWLINE_SERVER_READ_AHEAD_H_

#include <cstdint>
#include <deque>
#include <memory>

#include "absl/status/status.h"

#include "common/executor.h"
#include "common/mutex.h"
#include "replica/upstream.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {

// Messages, of about 1 MiB each, that are held at most.
inline constexpr size_t kReadAheadMessages = 4;

// Threads: as SnapshotStream.
class ReadAheadStream final : public SnapshotStream {
 public:
  // `executor` must outlive it.
  ReadAheadStream(std::unique_ptr<SnapshotStream> stream, Executor& executor);
  ~ReadAheadStream() override;

  ReadResult Read(v1::FetchSnapshotResponse* out, int64_t timeout_micros) override TOWLINE_EXCLUDES(mutex_);
  void Cancel() override;
  absl::Status Finish() override TOWLINE_EXCLUDES(mutex_);

 private:
  StepResult Step() TOWLINE_EXCLUDES(mutex_);

  const std::unique_ptr<SnapshotStream> stream_;  // but for Cancel the loop's, until it has stopped

  Mutex mutex_;
  CondVar arrived_;
  std::deque<v1::FetchSnapshotResponse> messages_ TOWLINE_GUARDED_BY(mutex_);
  bool closed_ TOWLINE_GUARDED_BY(mutex_) = false;

  std::unique_ptr<Loop> loop_;  // last member: stops before the rest goes away
};

}  // namespace towline

#endif  // TOWLINE_SERVER_READ_AHEAD_H_
