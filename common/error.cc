#include "common/error.h"

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"

#include "common/bytes.h"
#include "common/check.h"

namespace towline {
namespace {

constexpr char kPayloadUrl[] = "towline.v1/ErrorInfo";

// Never leaves the process, so it needs no version: reason, message, next action, count, then key and value pairs.
std::string Encode(const ErrorInfo& info) {
  std::string out;
  ByteWriter writer(&out);
  writer.LengthPrefixed(info.reason);
  writer.LengthPrefixed(info.message);
  writer.LengthPrefixed(info.next_action);
  writer.U32(static_cast<uint32_t>(info.metadata.size()));
  for (const auto& [key, value] : info.metadata) {
    writer.LengthPrefixed(key);
    writer.LengthPrefixed(value);
  }
  return out;
}

// False if `data` was not made by Encode.
bool Decode(absl::string_view data, ErrorInfo* info) {
  ByteReader reader(data);
  info->reason = std::string(reader.LengthPrefixed());
  info->message = std::string(reader.LengthPrefixed());
  info->next_action = std::string(reader.LengthPrefixed());
  const uint32_t count = reader.U32();
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    std::string key(reader.LengthPrefixed());
    info->metadata[std::move(key)] = std::string(reader.LengthPrefixed());
  }
  return reader.ok() && reader.remaining() == 0;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, ErrorInfo info) {
  TOWLINE_CHECK(code != absl::StatusCode::kOk);
  std::string text = absl::StrCat(info.reason, ": ", info.message);
  if (!info.next_action.empty()) absl::StrAppend(&text, " (", info.next_action, ")");
  absl::Status status(code, text);
  status.SetPayload(kPayloadUrl, absl::Cord(Encode(info)));
  return status;
}

absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       absl::string_view next_action) {
  ErrorInfo info;
  info.reason = std::string(reason);
  info.message = std::string(message);
  info.next_action = std::string(next_action);
  return MakeError(code, std::move(info));
}

ErrorInfo GetErrorInfo(const absl::Status& status) {
  TOWLINE_CHECK(!status.ok());
  ErrorInfo info;
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  if (payload.has_value() && Decode(std::string(*payload), &info)) return info;

  ErrorInfo plain;
  plain.reason = absl::AsciiStrToLower(absl::StatusCodeToString(status.code()));
  plain.message = std::string(status.message());
  return plain;
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&annotated](absl::string_view url, const absl::Cord& payload) { annotated.SetPayload(url, payload); });
  return annotated;
}

}  // namespace towline
