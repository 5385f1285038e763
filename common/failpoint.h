// Named points at which a test can make the product do something wrong on purpose, to see that a check catches it.
//
// Set by the environment variable TOWLINE_FAILPOINTS ("name,name") at process start, or by a FailpointScope in a test.
// In production nothing is set and a point costs one relaxed load.

#ifndef TOWLINE_COMMON_FAILPOINT_H_
#define TOWLINE_COMMON_FAILPOINT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace towline {

// Whether the point is on.
bool Failpoint(absl::string_view name);

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
