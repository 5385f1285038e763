#include "client/scan_pages.h"

#include <utility>

#include "client/retry_policy.h"

namespace towline::client {

absl::StatusOr<FromNode<v1::ScanResponse>> ScanPages::Ask(uint32_t limit) {
  v1::ScanRequest request = range_;
  if (limit > 0) request.set_limit(limit);
  if (token_.empty()) return cluster_.Scan(std::move(request), route_);
  const v1::ScanRequest first_page = request;
  request.set_page_token(token_);
  request.set_pinned(false);
  CallRoute here = route_;
  here.only_endpoint = endpoint_;
  auto answer = cluster_.Scan(std::move(request), here);
  const bool elsewhere = !answer.ok() && !range_.pinned() && IsWorthAnotherRead(answer.status());
  return elsewhere ? cluster_.Scan(first_page, route_) : std::move(answer);
}

absl::StatusOr<bool> ScanPages::Next(v1::ScanResponse* page, uint32_t limit) {
  if (at_end_) return false;
  auto answer = Ask(limit);
  if (!answer.ok()) return answer.status();
  *page = std::move(answer->response);
  token_ = page->next_page_token();
  endpoint_ = answer->endpoint;
  at_end_ = token_.empty();
  if (!page->entries().empty()) {
    range_.set_begin(page->entries(page->entries_size() - 1).key() + std::string(1, '\0'));
  }
  // Another node must not be older than what was read already.
  route_.at = page->position();
  return true;
}

}  // namespace towline::client
