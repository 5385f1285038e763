#include "common/check.h"

#include <cstdio>
#include <cstdlib>

namespace towline {

void CheckFailed(const char* file, int line, const char* text) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, text);
  std::fflush(stderr);
  std::abort();
}

}  // namespace towline
