#include "ctl/ranges.h"

#include <algorithm>

#include "common/error.h"

namespace towline::ctl {

std::string PrefixEnd(absl::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

absl::Status ScanPages(client::Client& client, v1::ScanRequest request, bool pinned, uint64_t limit,
                       const std::function<absl::Status(const v1::ScanResponse&)>& on_page) {
  constexpr uint64_t kPageMax = 10000;
  request.set_pinned(pinned);
  while (limit > 0) {
    request.set_limit(static_cast<uint32_t>(std::min(limit, kPageMax)));
    const auto page = client.Scan(request);
    if (!page.ok()) return page.status();
    TOWLINE_RETURN_IF_ERROR(on_page(*page));
    limit -= std::min<uint64_t>(limit, page->entries_size());
    if (page->next_page_token().empty()) break;
    request.set_page_token(page->next_page_token());
    request.set_pinned(false);
  }
  return absl::OkStatus();
}

}  // namespace towline::ctl
