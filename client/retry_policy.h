// What is done about a failed attempt, and how long to wait before the next one. Pure functions and values.

#ifndef TOWLINE_CLIENT_RETRY_POLICY_H_
#define TOWLINE_CLIENT_RETRY_POLICY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/error.h"
#include "common/rng.h"
#include "towline/client_error.h"

namespace towline::client {

// Whether an error comes from the connection, not from a node that has seen the request.
bool IsTransportError(const absl::Status& error);

// Whether the same write may succeed later or on another node.
bool IsWorthAnotherWrite(const absl::Status& error);

// Whether the same read may succeed later or on another node.
bool IsWorthAnotherRead(const absl::Status& error);

// Whether the refusal of a stream's element is about the element: another node would refuse it too.
bool IsAboutTheRecord(absl::string_view reason);
// Such a refusal as an error.
absl::Status RefusalOf(const ErrorInfo& refusal);

// How long a node that failed a read like this is left alone while others can answer.
int64_t ReadSuspensionMicros(const absl::Status& error);

// What one failed attempt says about the record.
WriteFate FateOfAttempt(const absl::Status& error);

// Of all attempts together, given what it was before.
WriteFate CombineFates(WriteFate before, WriteFate last);

// The error of the last attempt, for a caller who is not helped by another one: how often it was tried, and for writes
// what is known of the record.
absl::Status GaveUp(const absl::Status& last, int attempts, int64_t micros);
absl::Status WithFate(const absl::Status& error, WriteFate fate);

// Pauses that double, each shortened by up to a half at random, so that clients do not come back together.
// Threads: external synchronization.
class RetryPause {
 public:
  RetryPause(int64_t min_us, int64_t max_us, Rng& rng)
      : next_us_(min_us), min_us_(min_us), max_us_(max_us), rng_(rng) {}

  int64_t NextMicros();
  void Reset() { next_us_ = min_us_; }

 private:
  int64_t next_us_;
  const int64_t min_us_;
  const int64_t max_us_;
  Rng& rng_;
};

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_RETRY_POLICY_H_
