// Programs that a drill starts, stops and kills.

#ifndef TOWLINE_CTL_CHILD_PROCESS_H_
#define TOWLINE_CTL_CHILD_PROCESS_H_

#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace towline::ctl {

struct ChildOptions {
  std::vector<std::string> command;  // program and arguments
  std::string log_path;              // standard output and error are appended there
  bool ends_with_us = true;          // killed when the thread that started it ends, however that comes about
};

// A running child. It has a process group of its own, so that an interrupt on the terminal reaches only us.
// Threads: external synchronization.
class ChildProcess {
 public:
  // INTERNAL, reason process_failed.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const ChildOptions& options);

  // Kills it unless it was released.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }

  // Whether it has not ended yet.
  bool Running();

  // Sends SIGSTOP and waits until it stands still.
  void Stop();
  // Sends SIGCONT.
  void Continue();
  // Sends SIGKILL and waits for the end; also of a stopped one.
  void Kill();

  // From now on it lives on without us.
  void Release() { released_ = true; }

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}

  const pid_t pid_;
  bool ended_ = false;
  bool released_ = false;
};

// A port of 127.0.0.1 that nothing listens on, below the range from which the kernel takes the local ports of
// connections. RESOURCE_EXHAUSTED, reason no_port.
absl::StatusOr<int> FreePort();

// The directory of the program that runs.
std::string ProgramDirectory();

// A new directory below $TMPDIR, or /tmp. INTERNAL, reason file_error.
absl::StatusOr<std::string> NewTemporaryDirectory(const std::string& prefix);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_CHILD_PROCESS_H_
