// Load through the C++ client library, as a program makes it that uses towline::Client.

#ifndef TOWLINE_CTL_BENCH_LIBRARY_H_
#define TOWLINE_CTL_BENCH_LIBRARY_H_

#include <cstddef>

#include "absl/status/statusor.h"

#include "ctl/bench_load.h"
#include "towline/client.h"

namespace towline::ctl {

enum class LibraryMode { kPut, kGet, kBatcher };

struct LibraryLoad {
  ClientOptions client;
  LibraryMode mode = LibraryMode::kPut;
  size_t value_bytes = 0;
};

// Calls block, so each in flight has a thread; `options.threads` clients share them. A batcher is a stream, with a
// window of in_flight times batch records; its calls are records, and their latency includes the wait for room in the
// window. `options.endpoint` and `options.request` are not used. Errors: as towline::Client::Make.
absl::StatusOr<LoadResult> RunLibraryLoad(const LoadOptions& options, const LibraryLoad& load);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_BENCH_LIBRARY_H_
