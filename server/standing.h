// A node's standing, as other nodes ask for it.

#ifndef TOWLINE_SERVER_STANDING_H_
#define TOWLINE_SERVER_STANDING_H_

#include "server/node.h"
#include "towline/v1/failover_service.pb.h"

namespace towline {

v1::Standing DescribeStanding(Node& node);

}  // namespace towline

#endif  // TOWLINE_SERVER_STANDING_H_
