// What a run of towctl reads from and writes to, so that tests run verbs in the process.

#ifndef TOWLINE_CTL_ENVIRONMENT_H_
#define TOWLINE_CTL_ENVIRONMENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

namespace towline::ctl {

// A request to end that can be waited for together with file descriptors. It stays triggered.
// Threads: Trigger from any thread and from signal handlers; the others from any thread.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  void Trigger();
  bool triggered() const { return WaitFor(0); }

  // Waits until triggered or until `micros` have passed; returns whether it is triggered.
  bool WaitFor(int64_t micros) const;

  // Waits until `fd` can be read; false if triggered first.
  bool WaitReadable(int fd) const;

 private:
  friend class InterruptWatch;
  int event_fd_;
};

// Calls `on_interrupt` once, on its own thread, when `interrupt` is triggered during the life of the object.
class InterruptWatch {
 public:
  InterruptWatch(const Interrupt& interrupt, std::function<void()> on_interrupt);
  ~InterruptWatch();  // waits for a running call
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

 private:
  int end_fd_;
  std::thread thread_;
};

struct Environment {
  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  int input_fd = 0;  // standard input
  bool input_is_terminal = false;
  Interrupt* interrupt = nullptr;
};

// Runs towctl with these arguments (without the program's name). Returns the exit code.
int RunTowctl(const std::vector<std::string>& arguments, Environment& environment);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_ENVIRONMENT_H_
