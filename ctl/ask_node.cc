#include "ctl/ask_node.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "common/error.h"

namespace towline::ctl {
namespace {

constexpr int64_t kAskMicros = 2'000'000;

}  // namespace

absl::StatusOr<v1::PullStart> AskNodeForStart(const Context& context, const std::string& address) {
  TOWLINE_ASSIGN_OR_RETURN(const auto node,
                           client::NewClient({address, std::min(kAskMicros, context.options().timeout_us), false}));
  TOWLINE_ASSIGN_OR_RETURN(v1::DescribeStartResponse answer, node->DescribeStart());
  return std::move(*answer.mutable_start());
}

}  // namespace towline::ctl
