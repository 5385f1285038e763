#include "absl/synchronization/mutex.h"

#include "server/config.h"
#include "server/daemon.h"

int main(int argc, char** argv) {
  // Debian's Abseil checks every lock of the process for cycles through one global graph unless told not to.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const towline::Invocation invocation = towline::ParseInvocation(argc, argv);
  if (invocation.action != towline::Invocation::Action::kRun) return invocation.exit_code;
  towline::BlockDaemonSignals();
  return towline::RunDaemon(invocation.config);
}
