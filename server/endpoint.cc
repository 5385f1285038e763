#include "server/endpoint.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline {

absl::StatusOr<Endpoint> ParseEndpoint(absl::string_view what, absl::string_view text) {
  const size_t colon = text.rfind(':');
  Endpoint endpoint;
  if (colon != absl::string_view::npos && absl::SimpleAtoi(text.substr(colon + 1), &endpoint.port) &&
      endpoint.port >= 0 && endpoint.port <= 65535) {
    absl::string_view host = text.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
      host = host.substr(1, host.size() - 2);
    } else if (absl::StrContains(host, ":")) {
      host = "";
    }
    endpoint.host = std::string(host);
    if (!endpoint.host.empty()) return endpoint;
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_endpoint",
                   absl::StrCat(what, ": \"", text, "\" is not HOST:PORT"));
}

bool IsLoopback(absl::string_view host) {
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

}  // namespace towline
