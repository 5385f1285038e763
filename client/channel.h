// gRPC channels as Towline's clients use them.

#ifndef TOWLINE_CLIENT_CHANNEL_H_
#define TOWLINE_CLIENT_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace towline::client {

// HOST:PORT with a port of 1 to 65535, an IPv6 host in brackets. INVALID_ARGUMENT, reason invalid_endpoint.
absl::Status ValidateEndpoint(absl::string_view endpoint);

// Whether channels to one endpoint share a TCP connection. kNear is a dedicated one, for a stream of large messages to
// this end from a peer that answers within kNearMicros: little more than one message is received ahead of the reader,
// so each message takes a few round trips.
enum class Connection { kShared, kDedicated, kNear };
inline constexpr int64_t kNearMicros = 300;

// A channel without automatic retries (a write must not be repeated silently, and the retry filter buffers messages),
// 16 MiB as largest message received, keepalive that notices a vanished peer within 15 s. Connects lazily.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& endpoint, Connection connection);

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_CHANNEL_H_
