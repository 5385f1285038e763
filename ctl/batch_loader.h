// Writes many keys that do not depend on each other, in batches over one write stream.

#ifndef TOWLINE_CTL_BATCH_LOADER_H_
#define TOWLINE_CTL_BATCH_LOADER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "client/client.h"
#include "common/mutex.h"

namespace towline::ctl {

// Each batch is one record of up to 64 KiB, or of one larger key. No request ids: writing a key again is the same
// write, and the ids would drive others out of the node's window. Threads: Add, Finish and the destructor from one
// thread; the others from any.
class BatchLoader {
 public:
  // What is durable.
  struct Acked {
    uint64_t keys = 0;
    uint64_t bytes = 0;                    // of keys and values
    uint64_t offset = 0;                   // of the last of them, as given to Add
    std::optional<v1::Position> position;  // of the last record; the newest one that is known
  };

  // A record has at most `record_bytes_max` bytes, but for one key that is larger.
  BatchLoader(client::Client& client, uint64_t record_bytes_max);

  // Waits while much is unanswered. An error is why the stream ended, or the first refusal; nothing more can be added
  // then.
  absl::Status Add(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, uint64_t offset);

  // Sends what is left and waits for all answers. OK: everything that was added is acked.
  absl::Status Finish();

  // Ends the stream soon; what was sent may or may not have been written.
  void Cancel() { stream_->Cancel(); }

  Acked acked() const TOWLINE_EXCLUDES(mutex_);

 private:
  struct Batch {
    uint64_t keys = 0;
    uint64_t bytes = 0;
    uint64_t offset = 0;
  };

  absl::Status Flush();
  void OnAnswer(const client::WriteStreamAnswer& answer) TOWLINE_EXCLUDES(mutex_);
  absl::Status refused() const TOWLINE_EXCLUDES(mutex_);

  const uint64_t batch_bytes_max_;
  v1::WriteRequest request_;  // the batch that is being gathered
  uint64_t request_bytes_ = 0;
  Batch gathered_;

  mutable Mutex mutex_;
  std::deque<Batch> unanswered_ TOWLINE_GUARDED_BY(mutex_);
  Acked acked_ TOWLINE_GUARDED_BY(mutex_);
  absl::Status refused_ TOWLINE_GUARDED_BY(mutex_);

  std::unique_ptr<client::WriteStream> stream_;  // last: its callbacks use the others
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_BATCH_LOADER_H_
