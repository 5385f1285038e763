// Closed-loop load: a fixed number of calls or batches in flight. No gRPC in the header.

#ifndef TOWLINE_CTL_BENCH_LOAD_H_
#define TOWLINE_CTL_BENCH_LOAD_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "ctl/bench_requests.h"
#include "ctl/environment.h"
#include "ctl/histogram.h"

namespace towline::ctl {

struct LoadOptions {
  std::string endpoint;
  RequestTemplate request;
  uint64_t key_space = 1;
  int threads = 1;
  int in_flight = 1;  // calls over all threads; batches per stream
  int streams = 1;    // over all threads; stream load only
  int batch = 1;      // elements of `request`; stream load only
  double warmup_seconds = 0;
  double seconds = 1;
  int64_t timeout_us = 10'000'000;  // for what is still in flight at the end
  const Interrupt* interrupt = nullptr;
};

struct LoadResult {
  uint64_t calls = 0;    // unary calls or batches that ended in the measured time
  uint64_t records = 0;  // calls, or elements of these batches
  uint64_t errors = 0;   // failed calls, refused elements
  absl::Status first_error;
  double seconds = 0;      // measured time
  double cpu_seconds = 0;  // of this process, in that time
  Histogram latency_ns;    // of calls, or of batches from send to answer
  bool interrupted = false;

  double per_second(uint64_t count) const { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }
};

// Unary calls of `method` ("/towline.v1.KvService/Write").
LoadResult RunUnaryLoad(const LoadOptions& options, const std::string& method);

// Batches over WriteStream. A stream that breaks counts as one error and is not opened again.
LoadResult RunStreamLoad(const LoadOptions& options);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_BENCH_LOAD_H_
