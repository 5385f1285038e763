// Errors with a stable reason, numbers and the next action.
//
// An absl::Status made here carries an ErrorInfo payload; the gRPC adapters turn it into `grpc-status-details-bin` and
// the tools print it. A status without payload still works everywhere: its reason is then the name of its code.

#ifndef TOWLINE_COMMON_ERROR_H_
#define TOWLINE_COMMON_ERROR_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace towline {

// What a caller needs to act on a refusal.
struct ErrorInfo {
  std::string reason;                           // stable, lower_snake_case
  std::string message;                          // one sentence with the compared numbers
  std::string next_action;                      // what to do next; may be empty
  std::map<std::string, std::string> metadata;  // numbers and names for programs

  friend bool operator==(const ErrorInfo&, const ErrorInfo&) = default;
};

// A status with `info` attached. The status message is "reason: message (next_action)".
absl::Status MakeError(absl::StatusCode code, ErrorInfo info);
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       absl::string_view next_action = "");

// The attached info; for a status without one, reason = lower_snake_case code name and message = status message.
// Requires !status.ok().
ErrorInfo GetErrorInfo(const absl::Status& status);

// Prefixes the message with "context: ", keeping code and info.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace towline

// Returns the status of `expr` from the calling function unless it is OK.
#define TOWLINE_RETURN_IF_ERROR(expr)                  \
  do {                                                 \
    ::absl::Status towline_status_ = (expr);           \
    if (!towline_status_.ok()) return towline_status_; \
  } while (false)

// Assigns the value of the StatusOr `rexpr` to `lhs`, or returns its status.
#define TOWLINE_ASSIGN_OR_RETURN(lhs, rexpr) \
  TOWLINE_ASSIGN_OR_RETURN_IMPL_(TOWLINE_CONCAT_(towline_statusor_, __LINE__), lhs, rexpr)
#define TOWLINE_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, rexpr) \
  auto statusor = (rexpr);                                   \
  if (!statusor.ok()) return std::move(statusor).status();   \
  lhs = *std::move(statusor)
#define TOWLINE_CONCAT_(a, b) TOWLINE_CONCAT_INNER_(a, b)
#define TOWLINE_CONCAT_INNER_(a, b) a##b

#endif  // TOWLINE_COMMON_ERROR_H_
