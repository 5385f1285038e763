// Writes many records over one KvService.WriteStream.
//
// Elements are gathered into a message while the one before it is being sent, so a fast writer gets large messages and
// a slow one gets short delays. The number of unanswered bytes is bounded.

#ifndef TOWLINE_CLIENT_WRITE_STREAM_H_
#define TOWLINE_CLIENT_WRITE_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/channel.h"
#include "common/error.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::client {

struct WriteStreamOptions {
  size_t window_bytes = 16u << 20;           // of unanswered elements; one larger element may pass alone
  size_t message_bytes = 1u << 20;           // of one message; one larger element makes a message of its own
  size_t message_elements = 4096;            // of one message, at most 65536
  std::optional<v1::Durability> durability;  // of all elements; absent = the primary's default
  std::function<void()> on_end;              // called once, on a thread of the stream, when it has ended; likewise
                                             // must not call the stream
};

// Largest encoded element that a message can carry.
inline constexpr size_t kStreamElementSizeMax = (8u << 20) + (256u << 10);

// Elements that were answered together.
struct WriteStreamAnswer {
  struct Refusal {
    uint64_t sequence = 0;
    ErrorInfo error;
  };
  uint64_t first_sequence = 0;
  uint64_t last_sequence = 0;                  // everything from first to last is durable, or in `refused`
  std::vector<Refusal> refused;                // ordered by sequence
  std::vector<v1::DegradedElements> degraded;  // of them, written at a lower level; ordered by sequence
  std::optional<v1::Position> position;        // of the last record written by this stream
  uint64_t committed_lsn = 0;
};

// Threads: all methods from any thread; elements get their sequences in the order of the calls of Add.
class WriteStream {
 public:
  virtual ~WriteStream() = default;  // cancels what has not ended

  // Queues an element; waits while the window is full. Returns its sequence: 1, 2, 3, ... After the end of the stream:
  // why it ended. INVALID_ARGUMENT, reason record_too_large, for an element above kStreamElementSizeMax; the stream
  // goes on.
  virtual absl::StatusOr<uint64_t> Add(v1::WriteRequest&& element) = 0;

  // Closes the sending side and waits for the end. OK: every element was answered.
  virtual absl::Status Finish() = 0;

  // Ends the stream soon, from any thread; what was sent may or may not have been written.
  virtual void Cancel() = 0;
};

// Called on a thread of the stream, in order, never at the same time, not after Finish has returned. Must not call
// the stream.
using OnWriteStreamAnswer = std::function<void(const WriteStreamAnswer&)>;

std::unique_ptr<WriteStream> NewWriteStream(std::shared_ptr<grpc::Channel> channel, const WriteStreamOptions& options,
                                            OnWriteStreamAnswer on_answer);

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_WRITE_STREAM_H_
