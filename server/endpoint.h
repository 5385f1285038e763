// HOST:PORT.

#ifndef TOWLINE_SERVER_ENDPOINT_H_
#define TOWLINE_SERVER_ENDPOINT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace towline {

struct Endpoint {
  std::string host;  // without brackets
  int port = 0;      // 0 = any free port
};

// "127.0.0.1:7700", "[::1]:7700", "localhost:7700". `what` names it in the error.
absl::StatusOr<Endpoint> ParseEndpoint(absl::string_view what, absl::string_view text);

// 127.0.0.0/8, ::1 or localhost.
bool IsLoopback(absl::string_view host);

}  // namespace towline

#endif  // TOWLINE_SERVER_ENDPOINT_H_
