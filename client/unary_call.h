// One unary call with a deadline, and errors that name the endpoint.

#ifndef TOWLINE_CLIENT_UNARY_CALL_H_
#define TOWLINE_CLIENT_UNARY_CALL_H_

#include <chrono>
#include <cstdint>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>
#include <string>

#include "absl/status/statusor.h"

namespace towline::client {

// An error without details comes from the connection or from a server that is no Towline: says which endpoint.
absl::Status ExplainCallError(const grpc::Status& status, const std::string& endpoint, int64_t timeout_us);

template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> CallUnary(Stub& stub,
                                   grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                   const Request& request, const std::string& endpoint, int64_t timeout_us) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(timeout_us));
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return ExplainCallError(status, endpoint, timeout_us);
  return response;
}

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_UNARY_CALL_H_
