// /metrics in Prometheus text format, made anew from the node's status at every scrape.

#ifndef TOWLINE_SERVER_METRICS_H_
#define TOWLINE_SERVER_METRICS_H_

#include <string>

#include "server/node.h"

namespace towline {

// Names: docs/guides/operating.md. Labels are bounded: slots, replicas, reasons, states.
std::string RenderMetrics(Node& node);

}  // namespace towline

#endif  // TOWLINE_SERVER_METRICS_H_
