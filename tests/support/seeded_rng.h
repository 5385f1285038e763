// Random numbers that a seed decides.

#ifndef TOWLINE_TESTS_SUPPORT_SEEDED_RNG_H_
#define TOWLINE_TESTS_SUPPORT_SEEDED_RNG_H_

#include <atomic>
#include <cstdint>

#include "common/rng.h"

namespace towline::test {

// SplitMix64: the same seed gives the same numbers on every machine.
// Threads: all methods from any thread.
class SeededRng : public Rng {
 public:
  explicit SeededRng(uint64_t seed) : state_(seed) {}

  uint64_t Next() override {
    uint64_t z = state_.fetch_add(kStep, std::memory_order_relaxed) + kStep;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  // 0 to end - 1. Requires end > 0.
  uint64_t Below(uint64_t end) { return Next() % end; }

  // True once in `n` times on average.
  bool OneIn(uint64_t n) { return Below(n) == 0; }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;
  std::atomic<uint64_t> state_;
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_SEEDED_RNG_H_
