// Named points at which a test can make the product do something wrong on purpose, to see that a check catches it.
//
// Set by the environment variable TOWLINE_FAILPOINTS ("name,name") at process start, or by a FailpointScope in a test.
// In production nothing is set and a point costs one relaxed load.

#ifndef TOWLINE_COMMON_FAILPOINT_H_
#define TOWLINE_COMMON_FAILPOINT_H_

#include <atomic>
#include <string>

#include "absl/strings/string_view.h"

namespace towline {

namespace internal {
extern std::atomic<int> failpoints_on;  // how many are; below 0: the environment was not read yet
bool IsFailpointOn(absl::string_view name);
}  // namespace internal

// Whether the point is on.
inline bool Failpoint(absl::string_view name) {
  return internal::failpoints_on.load(std::memory_order_relaxed) != 0 && internal::IsFailpointOn(name);
}

// Switches a point on for the scope.
class FailpointScope {
 public:
  explicit FailpointScope(std::string name);
  ~FailpointScope();
  FailpointScope(const FailpointScope&) = delete;
  FailpointScope& operator=(const FailpointScope&) = delete;

 private:
  const std::string name_;
};

}  // namespace towline

#endif  // TOWLINE_COMMON_FAILPOINT_H_
