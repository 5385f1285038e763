// What every member that could take over holds.

#ifndef TOWLINE_SERVER_COMMON_LSN_H_
#define TOWLINE_SERVER_COMMON_LSN_H_

#include <vector>

#include "common/types.h"
#include "primary/replication_source.h"

namespace towline {

// The LSN that all members that count and are connected have flushed: whichever of them takes over, it holds the log up
// to there. 0 = none is connected.
Lsn CommonLsn(const std::vector<PeerStatus>& peers, const MemberList& members);

}  // namespace towline

#endif  // TOWLINE_SERVER_COMMON_LSN_H_
