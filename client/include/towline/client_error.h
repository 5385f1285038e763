// What an error of the service says to programs.

#ifndef TOWLINE_CLIENT_ERROR_H_
#define TOWLINE_CLIENT_ERROR_H_

#include <map>
#include <string>

#include "absl/status/status.h"

namespace towline {

// The parts of an error. Those of the connection itself have the status code in lower case as reason ("unavailable").
struct ErrorDetails {
  std::string reason;                           // stable, lower_snake_case: condition_failed, position_discarded, ...
  std::string message;                          // one sentence with the compared numbers
  std::string next_action;                      // what to do next; may be empty
  std::map<std::string, std::string> metadata;  // numbers and names for programs
};

// Requires !error.ok().
ErrorDetails DetailsOf(const absl::Status& error);

// What is known of the record of a write that failed.
enum class WriteFate {
  kNotLogged,    // it is not in the log and will not get there
  kDurableHere,  // it is in the log of a primary, at a lower commit level than asked for; a failover may discard it
  kUnknown,      // it may be in the log or not: read the keys to find out
};

// Requires !error.ok(), of a write.
WriteFate FateOf(const absl::Status& error);

}  // namespace towline

#endif  // TOWLINE_CLIENT_ERROR_H_
