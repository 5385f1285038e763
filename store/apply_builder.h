// Turns records into one batch of engine keys.

#ifndef TOWLINE_STORE_APPLY_BUILDER_H_
#define TOWLINE_STORE_APPLY_BUILDER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "store/change_reader.h"
#include "store/expiry_index.h"
#include "store/state_store.h"
#include "store/store.h"

namespace towline {

// Threads: external synchronization.
class ApplyBuilder {
 public:
  ApplyBuilder(Store& store, ExpiryIndex& expiry) : store_(store), expiry_(expiry) {}

  // Adds to `batch` what `records` do, the position included. On an error the batch must not be written.
  absl::Status Build(absl::Span<const ApplyRecord> records, StoreBatch& batch);

 private:
  absl::Status ReadRecords(absl::Span<const ApplyRecord> records);
  void KeepLastPerKey();
  void AddOperation(const ChangeOperation& operation, StoreBatch& batch);

  // A place in operations_, with the first bytes of its key as a number, so that sorting rarely looks at keys.
  struct Ref {
    uint64_t prefix;
    uint32_t index;
  };

  Store& store_;
  ExpiryIndex& expiry_;

  // Kept between calls for their memory.
  std::vector<ChangeHead> heads_;
  std::vector<ChangeOperation> operations_;
  std::vector<Ref> refs_;
  std::string key_;
  std::string value_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_APPLY_BUILDER_H_
