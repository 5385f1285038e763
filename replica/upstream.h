// The seam to the node that a replica pulls from.

#ifndef TOWLINE_REPLICA_UPSTREAM_H_
#define TOWLINE_REPLICA_UPSTREAM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"

namespace towline {
namespace v1 {
class PullRequest;
class PullResponse;
class FetchSnapshotRequest;
class FetchSnapshotResponse;
}  // namespace v1

enum class ReadResult {
  kMessage,  // *out is filled
  kTimeout,  // nothing arrived in time, or Wake was called
  kClosed,   // the stream is over: see Finish
};

// One Pull stream.
// Threads: Wake and Cancel from any thread, the rest from one.
class PullStream {
 public:
  virtual ~PullStream() = default;

  // Sends a request; may wait until the one before has left. False: the stream is broken.
  virtual bool Write(const v1::PullRequest& request) = 0;

  // Timeout 0: without waiting.
  virtual ReadResult Read(v1::PullResponse* out, int64_t timeout_micros) = 0;

  // Makes a waiting Read, or the next with a timeout, return kTimeout.
  virtual void Wake() = 0;

  virtual void Cancel() = 0;

  // Why the stream ended. Call after kClosed or Cancel.
  virtual absl::Status Finish() = 0;
};

// One FetchSnapshot stream. Threads as PullStream.
class SnapshotStream {
 public:
  virtual ~SnapshotStream() = default;
  // `*data` is what a piece of a file (file_chunk) holds, whose own field is left empty.
  virtual ReadResult Read(v1::FetchSnapshotResponse* out, absl::Cord* data, int64_t timeout_micros) = 0;
  virtual void Cancel() = 0;
  virtual absl::Status Finish() = 0;
};

// Threads: all methods from any thread. Opening waits for milliseconds at most: a dead peer shows as kClosed.
class Upstream {
 public:
  virtual ~Upstream() = default;
  virtual std::string endpoint() const = 0;
  virtual std::unique_ptr<PullStream> OpenPull() = 0;
  virtual std::unique_ptr<SnapshotStream> OpenSnapshot(const v1::FetchSnapshotRequest& request) = 0;
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_UPSTREAM_H_
