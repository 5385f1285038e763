// Runs a node until a signal or a fatal error.

#ifndef TOWLINE_SERVER_DAEMON_H_
#define TOWLINE_SERVER_DAEMON_H_

#include "server/config.h"

namespace towline {

// Blocks the signals that RunDaemon waits for, in the calling thread and all it starts later. Call before any thread.
void BlockDaemonSignals();

// Opens, starts and stops the node. Returns the exit code of the process.
int RunDaemon(const NodeConfig& config);

}  // namespace towline

#endif  // TOWLINE_SERVER_DAEMON_H_
