#include "client/rpc_status.h"

#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace towline {
namespace {

// Message and details travel together; the message repeats most of the details.
constexpr size_t kDetailsSizeMax = 3072;
constexpr size_t kTextSizeMax = 1024;

// Cuts at `max` bytes without splitting a UTF-8 sequence: protobuf strings have to stay valid.
std::string Cut(std::string text, size_t max) {
  if (text.size() <= max) return text;
  size_t end = max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
  text.resize(end);
  return text;
}

std::string Encode(const absl::Status& status, const v1::ErrorDetail& detail) {
  v1::RpcStatus rpc_status;
  rpc_status.set_code(static_cast<int>(status.code()));
  rpc_status.set_message(Cut(std::string(status.message()), kTextSizeMax));
  google::protobuf::Any* any = rpc_status.add_details();
  any->set_type_url(kErrorDetailTypeUrl);
  any->set_value(detail.SerializeAsString());
  return rpc_status.SerializeAsString();
}

}  // namespace

v1::ErrorDetail ToErrorDetail(const absl::Status& status) {
  ErrorInfo info = GetErrorInfo(status);
  v1::ErrorDetail detail;
  detail.set_reason(std::move(info.reason));
  detail.set_message(std::move(info.message));
  detail.set_next_action(std::move(info.next_action));
  for (auto& [key, value] : info.metadata) (*detail.mutable_metadata())[key] = std::move(value);
  return detail;
}

ErrorInfo FromErrorDetail(const v1::ErrorDetail& detail) {
  ErrorInfo info;
  info.reason = detail.reason();
  info.message = detail.message();
  info.next_action = detail.next_action();
  for (const auto& [key, value] : detail.metadata()) info.metadata[key] = value;
  return info;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::ErrorDetail detail = ToErrorDetail(status);
  std::string details = Encode(status, detail);
  if (details.size() > kDetailsSizeMax) {
    detail.clear_metadata();
    detail.set_reason(Cut(detail.reason(), kTextSizeMax / 4));
    detail.set_message(Cut(detail.message(), kTextSizeMax));
    detail.set_next_action(Cut(detail.next_action(), kTextSizeMax / 2));
    details = Encode(status, detail);
  }
  return {static_cast<grpc::StatusCode>(status.code()), Cut(std::string(status.message()), kTextSizeMax), details};
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  v1::RpcStatus rpc_status;
  if (rpc_status.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& any : rpc_status.details()) {
      v1::ErrorDetail detail;
      if (absl::EndsWith(any.type_url(), "/towline.v1.ErrorDetail") && detail.ParseFromString(any.value()) &&
          !detail.reason().empty()) {
        return MakeError(code, FromErrorDetail(detail));
      }
    }
  }
  return absl::Status(code, status.error_message());
}

}  // namespace towline
