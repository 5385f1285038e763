// absl::Status with ErrorInfo <-> grpc::Status with `grpc-status-details-bin`.
//
// The details are an encoded towline.v1.RpcStatus (the field numbers of google.rpc.Status) with one
// towline.v1.ErrorDetail, so clients in any language read reason, numbers and next action.

#ifndef TOWLINE_CLIENT_RPC_STATUS_H_
#define TOWLINE_CLIENT_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

#include "common/error.h"
#include "towline/v1/types.pb.h"

namespace towline {

inline constexpr char kErrorDetailTypeUrl[] = "type.googleapis.com/towline.v1.ErrorDetail";

// Every error gets details. Trailers are limited to 8 KiB by default: metadata is left out, then the texts are cut,
// when the details would be larger than 3 KiB.
grpc::Status ToGrpcStatus(const absl::Status& status);

// A status without (readable) details becomes one without ErrorInfo.
absl::Status FromGrpcStatus(const grpc::Status& status);

// For answers inside a stream.
v1::ErrorDetail ToErrorDetail(const absl::Status& status);  // requires !status.ok()
ErrorInfo FromErrorDetail(const v1::ErrorDetail& detail);

}  // namespace towline

#endif  // TOWLINE_CLIENT_RPC_STATUS_H_
