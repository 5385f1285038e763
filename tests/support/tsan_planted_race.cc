// Two threads write one variable without a lock. ThreadSanitizer has to say so.

#include <thread>

namespace {
int shared = 0;
}  // namespace

int main() {
  std::thread other([] {
    for (int i = 0; i < 10000; ++i) shared = shared + 1;
  });
  for (int i = 0; i < 10000; ++i) shared = shared + 1;
  other.join();
  return 0;
}
