// Asking another node than the one that --endpoint names.

#ifndef TOWLINE_CTL_ASK_NODE_H_
#define TOWLINE_CTL_ASK_NODE_H_

#include <string>

#include "absl/status/statusor.h"

#include "ctl/app.h"

namespace towline::ctl {

// With what the node at HOST:PORT would start a pull now. Waits for at most two seconds, or --timeout if that is less.
absl::StatusOr<v1::PullStart> AskNodeForStart(const Context& context, const std::string& address);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_ASK_NODE_H_
