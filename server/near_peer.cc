#include "server/near_peer.h"

#include <algorithm>
#include <chrono>
#include <grpcpp/client_context.h>

namespace towline {
namespace {

constexpr int kCalls = 8;
constexpr std::chrono::microseconds kTimeout{5'000};

}  // namespace

bool IsNear(v1::AdminService::StubInterface& peer, int64_t near_micros) {
  const std::chrono::microseconds near(near_micros);
  const auto end = std::chrono::steady_clock::now() + std::max(kTimeout, near);
  for (int i = 0; i < kCalls; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (start >= end) return false;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::microseconds>(end - start));
    v1::PingResponse response;
    if (!peer.Ping(&context, {}, &response).ok()) return false;
    if (std::chrono::steady_clock::now() - start <= near) return true;
  }
  return false;
}

}  // namespace towline
