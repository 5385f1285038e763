// How long a turn of a thread on a processor is.

#ifndef TOWLINE_TESTS_SUPPORT_THREAD_TURN_H_
#define TOWLINE_TESTS_SUPPORT_THREAD_TURN_H_

#include <cstdint>
#include <sys/syscall.h>
#include <unistd.h>

namespace towline::test {

// In nanoseconds, of the calling thread. 0 = the kernel does not say (before Linux 6.12). Source: sched_getattr(2).
inline uint64_t ThreadTurnNanos() {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes{};
  return ::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) == 0 ? attributes.runtime : 0;
}

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_THREAD_TURN_H_
