// Runs a program beside the test.

#ifndef TOWLINE_TESTS_STORE_CHILD_PROCESS_H_
#define TOWLINE_TESTS_STORE_CHILD_PROCESS_H_

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace towline::test {

// A process made by posix_spawn, found in PATH. Its output goes to a file. Killed and reaped by the destructor.
class ChildProcess {
 public:
  ChildProcess(const std::vector<std::string>& command, const std::string& output_path);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // False if the program could not be started.
  bool started() const { return pid_ > 0; }

  // Waits for its end, at most `seconds`. Returns the exit code, 128 + n if signal n ended it, or -1 on timeout.
  int Wait(int seconds);

  bool Running();
  void Kill(int signal);

 private:
  pid_t pid_ = -1;
  int exit_code_ = -1;
  bool ended_ = false;
};

// Runs a program to its end and returns the exit code; *output gets what it wrote.
int RunCommand(const std::vector<std::string>& command, const std::string& scratch_path, std::string* output);

// Whether `program` is in PATH. If not, says on standard error that the test is skipped.
bool HaveProgram(const std::string& program);

// Asks `done` every few milliseconds until it returns true or `seconds` passed; returns the last answer.
bool WaitUntil(int seconds, const std::function<bool()>& done);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_STORE_CHILD_PROCESS_H_
