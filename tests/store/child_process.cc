#include "tests/store/child_process.h"

#include <cstdio>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "absl/strings/str_split.h"

#include "common/clock.h"
#include "common/file_system.h"

extern char** environ;

namespace towline::test {

ChildProcess::ChildProcess(const std::vector<std::string>& command, const std::string& output_path) {
  std::vector<char*> argv;
  for (const std::string& part : command) argv.push_back(const_cast<char*>(part.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, output_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  if (posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
  posix_spawn_file_actions_destroy(&actions);
}

ChildProcess::~ChildProcess() {
  if (!Running()) return;
  Kill(SIGKILL);
  Wait(60);
}

bool ChildProcess::Running() {
  if (pid_ <= 0 || ended_) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  ended_ = true;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

int ChildProcess::Wait(int seconds) {
  if (pid_ <= 0) return -1;
  return WaitUntil(seconds, [this] { return !Running(); }) ? exit_code_ : -1;
}

void ChildProcess::Kill(int signal) {
  if (pid_ > 0 && !ended_) kill(pid_, signal);
}

int RunCommand(const std::vector<std::string>& command, const std::string& scratch_path, std::string* output) {
  ChildProcess process(command, scratch_path);
  const int code = process.Wait(60);
  const absl::StatusOr<std::string> written = ReadFile(*PosixFileSystem(), scratch_path);
  *output = written.ok() ? *written : written.status().ToString();
  return code;
}

bool HaveProgram(const std::string& program) {
  const char* path = getenv("PATH");
  for (const absl::string_view directory : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    if (access(JoinPath(directory, program).c_str(), X_OK) == 0) return true;
  }
  std::fprintf(stderr, "NOTICE: %s is not installed: this test is skipped\n", program.c_str());
  return false;
}

bool WaitUntil(int seconds, const std::function<bool()>& done) {
  const int64_t deadline = SystemClock()->MonotonicMicros() + int64_t{seconds} * 1000000;
  while (!done()) {
    if (SystemClock()->MonotonicMicros() > deadline) return done();
    const timespec pause{0, 2'000'000};
    nanosleep(&pause, nullptr);
  }
  return true;
}

}  // namespace towline::test
