#include "store/state_builder.h"

#include "common/error.h"
#include "store/request_window.h"
#include "store/state_format.h"

namespace towline {

absl::Status StateBuilder::Add(absl::string_view key, absl::string_view value, uint64_t expire_at_ms,
                               Lsn modified_lsn) {
  engine_key_.assign(1, kUserSpace);
  engine_key_.append(key.data(), key.size());
  envelope_.clear();
  AppendEnvelope(modified_lsn, expire_at_ms, value, &envelope_);
  TOWLINE_RETURN_IF_ERROR(in_order_ ? loader_->Add(engine_key_, envelope_)
                                    : loader_->AddUnordered(engine_key_, envelope_));
  return expire_at_ms == 0 ? absl::OkStatus() : loader_->AddUnordered(ExpiryKey(expire_at_ms, key), "");
}

absl::Status StateBuilder::Finish(absl::string_view request_window, const Position& position) {
  if (!request_window.empty()) {
    TOWLINE_RETURN_IF_ERROR(DecodeRequestWindow(request_window, [this](absl::string_view key, absl::string_view value) {
      return loader_->AddUnordered(key, value);
    }));
  }
  TOWLINE_RETURN_IF_ERROR(loader_->AddUnordered(kPositionKey, EncodePosition(position)));
  return loader_->Finish();
}

}  // namespace towline
