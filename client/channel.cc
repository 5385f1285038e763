#include "client/channel.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace towline::client {
namespace {

absl::Status InvalidEndpoint(absl::string_view endpoint, absl::string_view why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_endpoint",
                   absl::StrCat("\"", Printable(endpoint), "\" is not an endpoint: ", why),
                   "give HOST:PORT, such as 127.0.0.1:7700 or [::1]:7700");
}

}  // namespace

absl::Status ValidateEndpoint(absl::string_view endpoint) {
  const size_t colon = endpoint.rfind(':');
  if (colon == absl::string_view::npos) return InvalidEndpoint(endpoint, "it has no port");
  absl::string_view host = endpoint.substr(0, colon);
  const absl::string_view port = endpoint.substr(colon + 1);
  uint32_t number = 0;
  if (port.empty() || port.find_first_not_of("0123456789") != absl::string_view::npos ||
      !absl::SimpleAtoi(port, &number) || number < 1 || number > 65535) {
    return InvalidEndpoint(endpoint, "the port is not a number of 1 to 65535");
  }
  const bool brackets = absl::StartsWith(host, "[") && absl::EndsWith(host, "]") && host.size() > 2;
  if (brackets) host = host.substr(1, host.size() - 2);
  if (host.empty()) return InvalidEndpoint(endpoint, "the host is empty");
  if (!brackets && host.find(':') != absl::string_view::npos) {
    return InvalidEndpoint(endpoint, "an IPv6 address needs brackets");
  }
  for (const char c : host) {
    const bool allowed = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ||
                         (brackets && (c == ':' || c == '%'));
    if (!allowed) return InvalidEndpoint(endpoint, "the host has a character that no host name or address has");
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& endpoint, Connection connection) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(16 << 20);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_WRITE_BUFFER_SIZE, 1 << 20);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  if (connection != Connection::kShared) arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // gRPC's estimate of the window opens it to 4 MiB at least: that much comes in ahead of the reader and is cold in its
  // cache by then. Near by, a message at a time keeps the connection busy.
  if (connection == Connection::kNear) arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace towline::client
