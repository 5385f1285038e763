#include <iostream>
#include <signal.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "absl/synchronization/mutex.h"

#include "ctl/environment.h"

namespace {

towline::ctl::Interrupt* interrupt = nullptr;

// The first signal ends the verb in order, a second one the process.
void OnSignal(int signal_number) {
  interrupt->Trigger();
  signal(signal_number, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  // Debian's Abseil checks lock orders in a global graph, which costs more than all locks of a benchmark.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  towline::ctl::Interrupt the_interrupt;
  interrupt = &the_interrupt;
  signal(SIGPIPE, SIG_IGN);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::ios::sync_with_stdio(false);

  towline::ctl::Environment environment;
  environment.out = &std::cout;
  environment.err = &std::cerr;
  environment.out_is_terminal = isatty(STDOUT_FILENO) == 1;
  environment.err_is_terminal = isatty(STDERR_FILENO) == 1;
  environment.input_fd = STDIN_FILENO;
  environment.input_is_terminal = isatty(STDIN_FILENO) == 1;
  environment.interrupt = &the_interrupt;
  const int code = towline::ctl::RunTowctl(std::vector<std::string>(argv + 1, argv + argc), environment);
  std::cout.flush();
  return code;
}
