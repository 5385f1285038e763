#include "ctl/environment.h"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <utility>

#include "common/check.h"

namespace towline::ctl {
namespace {

int NewEventFd() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  TOWLINE_CHECK(fd >= 0);
  return fd;
}

void Signal(int fd) {
  const uint64_t one = 1;
  (void)!write(fd, &one, sizeof one);  // a full counter is triggered too
}

// Polls for input; `micros` < 0 waits for ever. Returns whether any of them is ready; EINTR counts as "not yet".
bool Poll(pollfd* fds, nfds_t count, int64_t micros) {
  timespec timeout{};
  timeout.tv_sec = static_cast<time_t>(std::max<int64_t>(micros, 0) / 1'000'000);
  timeout.tv_nsec = static_cast<long>(std::max<int64_t>(micros, 0) % 1'000'000 * 1000);
  for (;;) {
    const int ready = ppoll(fds, count, micros < 0 ? nullptr : &timeout, nullptr);
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return false;
  }
}

}  // namespace

Interrupt::Interrupt() : event_fd_(NewEventFd()) {}
Interrupt::~Interrupt() { close(event_fd_); }
void Interrupt::Trigger() { Signal(event_fd_); }

bool Interrupt::WaitFor(int64_t micros) const {
  pollfd fd{event_fd_, POLLIN, 0};
  return Poll(&fd, 1, std::max<int64_t>(micros, 0));
}

bool Interrupt::WaitReadable(int fd) const {
  pollfd fds[2] = {{event_fd_, POLLIN, 0}, {fd, POLLIN, 0}};
  Poll(fds, 2, -1);
  return fds[0].revents == 0;
}

InterruptWatch::InterruptWatch(const Interrupt& interrupt, std::function<void()> on_interrupt) : end_fd_(NewEventFd()) {
  thread_ = std::thread([this, fd = interrupt.event_fd_, run = std::move(on_interrupt)] {
    pollfd fds[2] = {{fd, POLLIN, 0}, {end_fd_, POLLIN, 0}};
    Poll(fds, 2, -1);
    if (fds[0].revents != 0 && fds[1].revents == 0) run();
  });
}

InterruptWatch::~InterruptWatch() {
  Signal(end_fd_);
  thread_.join();
  close(end_fd_);
}

}  // namespace towline::ctl
