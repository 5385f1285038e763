// Writes structured log events to standard error, as `key=value` text or as JSON Lines.

#ifndef TOWLINE_SERVER_LOG_SINK_H_
#define TOWLINE_SERVER_LOG_SINK_H_

#include <memory>
#include <string>

#include "common/logger.h"

namespace towline {

// `level` and `format` as in NodeConfig; `node_id` is in every line.
std::unique_ptr<Logger> NewLogSink(const std::string& level, const std::string& format, const std::string& node_id);

}  // namespace towline

#endif  // TOWLINE_SERVER_LOG_SINK_H_
