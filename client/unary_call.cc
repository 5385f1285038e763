#include "client/unary_call.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "client/rpc_status.h"
#include "common/error.h"

namespace towline::client {

absl::Status ExplainCallError(const grpc::Status& grpc_status, const std::string& endpoint, int64_t timeout_us) {
  const absl::Status status = FromGrpcStatus(grpc_status);
  if (!grpc_status.error_details().empty()) return status;
  ErrorInfo info = GetErrorInfo(status);
  info.metadata["endpoint"] = endpoint;
  if (absl::IsUnavailable(status)) {
    info.message = absl::StrCat("no connection to ", endpoint, ": ", info.message);
    info.next_action = "check that towlined listens there, or give another --endpoint";
  } else if (absl::IsDeadlineExceeded(status)) {
    info.message = absl::StrCat("no answer from ", endpoint, " within ", timeout_us / 1000, " ms");
    info.next_action = "a write may or may not have been logged; look with get or status, or give a longer --timeout";
  } else if (absl::IsUnimplemented(status)) {
    info.message = absl::StrCat(endpoint, " does not offer this call: ", info.message);
    info.next_action = "check the endpoint and the server's version";
  } else {
    info.message = absl::StrCat(endpoint, ": ", info.message);
  }
  return MakeError(status.code(), std::move(info));
}

}  // namespace towline::client
