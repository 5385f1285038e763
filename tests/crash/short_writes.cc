// Runs a program and lets each of its pwrite64 calls write only a part of what it asks for.
//
//   short_writes LOG PROGRAM [ARGUMENT]...
//
// An error can be injected without running the call, a short write cannot: bytes have to be written, but fewer. So a
// tracer lowers the byte count in the register at the entry of the call: one call writes half, the next one a third,
// one byte, all but one byte, everything. LOG gets the number of shortened calls. The program must have one thread.
// Exit code: the program's; 70 if it ended by a signal; 77 where tracing is not possible.

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr int kExitSignal = 70;
constexpr int kExitSkipped = 77;

#if defined(__x86_64__)
uint64_t CallNumber(const user_regs_struct& registers) { return registers.orig_rax; }
auto& ByteCount(user_regs_struct& registers) { return registers.rdx; }
#elif defined(__aarch64__)
uint64_t CallNumber(const user_regs_struct& registers) { return registers.regs[8]; }
auto& ByteCount(user_regs_struct& registers) { return registers.regs[2]; }
#else
#error "which registers hold the number of a system call and its third argument?"
#endif

uint64_t Shortened(uint64_t size, uint64_t turn) {
  const std::array<uint64_t, 5> sizes = {size / 2, size / 3, 1, size - 1, size};
  const uint64_t shortened = sizes[turn % sizes.size()];
  return shortened == 0 ? size : shortened;  // 0 would mean something else
}

bool Transfer(int request, pid_t child, user_regs_struct* registers) {
  iovec buffer = {registers, sizeof *registers};
  return ptrace(static_cast<__ptrace_request>(request), child, NT_PRSTATUS, &buffer) == 0;
}

int Trace(pid_t child, std::FILE* log) {
  uint64_t turn = 0;
  uint64_t shortened = 0;
  bool entry = true;
  int signal = 0;
  int status = 0;
  while (true) {
    if (ptrace(PTRACE_SYSCALL, child, 0, signal) != 0 || waitpid(child, &status, 0) != child) return kExitSkipped;
    if (WIFEXITED(status) || WIFSIGNALED(status)) break;
    const bool call = WSTOPSIG(status) == (SIGTRAP | 0x80);
    signal = call || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    if (!call) continue;
    if (entry) {
      user_regs_struct registers;
      if (!Transfer(PTRACE_GETREGSET, child, &registers)) return kExitSkipped;
      if (CallNumber(registers) == SYS_pwrite64) {
        const uint64_t size = ByteCount(registers);
        ByteCount(registers) = Shortened(size, turn++);
        if (ByteCount(registers) < size) ++shortened;
        if (!Transfer(PTRACE_SETREGSET, child, &registers)) return kExitSkipped;
      }
    }
    entry = !entry;
  }
  std::fprintf(log, "%llu\n", static_cast<unsigned long long>(shortened));
  return WIFEXITED(status) ? WEXITSTATUS(status) : kExitSignal;
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* const log = argc < 3 ? nullptr : std::fopen(argv[1], "w");
  if (log == nullptr) {
    std::fputs("usage: short_writes LOG PROGRAM [ARGUMENT]...\n", stderr);
    return 2;
  }
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(kExitSkipped);
    execv(argv[2], argv + 2);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return kExitSkipped;
  if (ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0) return kExitSkipped;
  const int code = Trace(child, log);
  std::fclose(log);
  return code;
}
