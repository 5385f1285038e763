// Which lines of an import are answered. Lines are answered in order, because a stream's answers are cumulative.

#ifndef TOWLINE_CTL_IMPORT_TRACKER_H_
#define TOWLINE_CTL_IMPORT_TRACKER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"

#include "client/write_stream.h"
#include "common/error.h"
#include "common/mutex.h"
#include "ctl/import_checkpoint.h"

namespace towline::ctl {

// Threads: all methods from any thread.
class ImportTracker {
 public:
  enum class Kind { kSent, kRejected, kBlank };

  // `start` is where the import begins. With `keep_requests` unanswered elements can be sent again.
  ImportTracker(ImportCheckpoint start, bool keep_requests);

  // The next line, and the offset behind it. kSent: its element is about to be added to the stream.
  void Add(Kind kind, uint64_t line, uint64_t offset, const v1::WriteRequest* request = nullptr);

  // A new stream begins; returns the elements that have to be sent first, in order.
  std::vector<v1::WriteRequest> BeginStream();

  // Calls `on_refused` for each line that the server refused for good. An element that was refused because of the
  // node's condition stays unanswered, with everything behind it: see blocked().
  using OnRefused = std::function<void(uint64_t line, const ErrorInfo& error)>;
  void OnAnswer(const client::WriteStreamAnswer& answer, const OnRefused& on_refused);

  // Why this stream cannot go on, although it may still be open.
  absl::Status blocked() const;

  // How far it is.
  ImportCheckpoint Snapshot() const;
  uint64_t unanswered() const;

 private:
  struct Item {
    Kind kind;
    uint64_t line;
    uint64_t offset;
    std::optional<v1::WriteRequest> request;
  };

  void Pop() TOWLINE_REQUIRES(mutex_);
  void PopUnsent() TOWLINE_REQUIRES(mutex_);

  const bool keep_requests_;
  mutable Mutex mutex_;
  ImportCheckpoint done_ TOWLINE_GUARDED_BY(mutex_);
  std::deque<Item> items_ TOWLINE_GUARDED_BY(mutex_);  // behind done_.last_acked_line
  uint64_t unanswered_ TOWLINE_GUARDED_BY(mutex_) = 0;
  absl::Status blocked_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_IMPORT_TRACKER_H_
