#include "server/run_on_pool.h"

#include "common/error.h"

namespace towline {

absl::Status PoolIsFull() {
  return MakeError(absl::StatusCode::kResourceExhausted, "busy", "too many calls of this kind are waiting",
                   "retry with backoff");
}

}  // namespace towline
