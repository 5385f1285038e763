// Builds the store of a new state from its entries, with their expiry index.

#ifndef TOWLINE_STORE_STATE_BUILDER_H_
#define TOWLINE_STORE_STATE_BUILDER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/types.h"
#include "store/store.h"

namespace towline {

// Threads: external synchronization.
class StateBuilder {
 public:
  // With `in_order` keys must rise strictly; else they may come in any order, each once.
  StateBuilder(std::unique_ptr<StoreBulkLoader> loader, bool in_order)
      : loader_(std::move(loader)), in_order_(in_order) {}

  // Errors as StoreBulkLoader::Add. `modified_lsn` 1 or more; `expire_at_ms` 0 = never.
  absl::Status Add(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, Lsn modified_lsn);

  // Writes request window (store/request_window.h; empty = none is known) and position, and makes the store durable. No
  // other call after it.
  absl::Status Finish(absl::string_view request_window, const Position& position);

 private:
  const std::unique_ptr<StoreBulkLoader> loader_;
  const bool in_order_;
  std::string engine_key_;  // scratch
  std::string envelope_;
};

}  // namespace towline

#endif  // TOWLINE_STORE_STATE_BUILDER_H_
