#include "ctl/child_process.h"

#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/rng.h"

namespace towline::ctl {
namespace {

constexpr int kPortAttempts = 200;
constexpr uint64_t kLowestPort = 10'000;
constexpr uint64_t kPorts = 22'000;  // up to 32000; the kernel's own begin at 32768

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void RunChild(char* const* arguments, int log, int null, bool ends_with_us, pid_t parent) {
  setpgid(0, 0);
  if (ends_with_us) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);  // we were too late to be told
  }
  dup2(null, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  signal(SIGPIPE, SIG_DFL);
  execv(arguments[0], arguments);
  const char text[] = "the program cannot be started\n";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  _exit(127);
}

absl::Status Failed(absl::string_view what) {
  return MakeError(absl::StatusCode::kInternal, "process_failed", absl::StrCat(what, ": ", strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const ChildOptions& options) {
  if (access(options.command[0].c_str(), X_OK) != 0) return Failed(options.command[0]);
  const int log = open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) return Failed(options.log_path);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::vector<char*> arguments;
  for (const std::string& argument : options.command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(arguments.data(), log, null, options.ends_with_us, parent);
  const absl::Status status = pid < 0 ? Failed("fork") : absl::OkStatus();
  close(log);
  close(null);
  TOWLINE_RETURN_IF_ERROR(status);
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid));
}

ChildProcess::~ChildProcess() {
  if (!released_) Kill();
}

bool ChildProcess::Running() {
  if (!ended_ && waitpid(pid_, nullptr, WNOHANG) == pid_) ended_ = true;
  return !ended_;
}

void ChildProcess::Stop() {
  if (!Running()) return;
  kill(pid_, SIGSTOP);
  int status = 0;
  const pid_t changed = waitpid(pid_, &status, WUNTRACED);
  if (changed == pid_ && !WIFSTOPPED(status)) ended_ = true;
}

void ChildProcess::Continue() {
  if (Running()) kill(pid_, SIGCONT);
}

void ChildProcess::Kill() {
  if (!Running()) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  ended_ = true;
}

absl::StatusOr<int> FreePort() {
  for (int i = 0; i < kPortAttempts; ++i) {
    const int port = static_cast<int>(kLowestPort + SystemRng()->Next() % kPorts);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    const bool free = fd >= 0 && bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    if (fd >= 0) close(fd);
    if (free) return port;
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, "no_port",
      absl::StrCat(kPortAttempts, " ports of 127.0.0.1 from ", kLowestPort, " on were tried, none is free"));
}

std::string ProgramDirectory() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  const std::string program(path, size < 0 ? 0 : static_cast<size_t>(size));
  return program.substr(0, program.rfind('/'));
}

absl::StatusOr<std::string> NewTemporaryDirectory(const std::string& prefix) {
  const char* base = getenv("TMPDIR");
  std::string path = absl::StrCat(base == nullptr || *base == '\0' ? "/tmp" : base, "/", prefix, "XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return MakeError(absl::StatusCode::kInternal, "file_error", absl::StrCat(path, ": ", strerror(errno)));
  }
  return path;
}

}  // namespace towline::ctl
