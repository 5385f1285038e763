#include <malloc.h>

#include "absl/synchronization/mutex.h"

#include "server/config.h"
#include "server/daemon.h"

namespace {

constexpr int kKeptFreeBytes = 8 << 20;  // of each arena

}  // namespace

int main(int argc, char** argv) {
  // Debian's Abseil checks every lock of the process for cycles through one global graph unless told not to.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Messages of a megabyte come and go: memory that is given back to the kernel each time is cleared, and faulted in,
  // each time. Costs a fifth of a re-bootstrap by default.
  (void)::mallopt(M_MMAP_THRESHOLD, kKeptFreeBytes);
  (void)::mallopt(M_TRIM_THRESHOLD, kKeptFreeBytes);
  const towline::Invocation invocation = towline::ParseInvocation(argc, argv);
  if (invocation.action != towline::Invocation::Action::kRun) return invocation.exit_code;
  towline::BlockDaemonSignals();
  return towline::RunDaemon(invocation.config);
}
