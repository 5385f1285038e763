// Randomness for identities, salts and jitter.

#ifndef TOWLINE_COMMON_RNG_H_
#define TOWLINE_COMMON_RNG_H_

#include <cstdint>

#include "common/types.h"

namespace towline {

// Threads: Next may be called from any thread.
class Rng {
 public:
  virtual ~Rng() = default;

  // 64 random bits.
  virtual uint64_t Next() = 0;
};

// The kernel's random numbers (getrandom). Lives for ever.
Rng* SystemRng();

// A random id that is not 0.
uint64_t NewId(Rng& rng);

// A random cluster id: 24 lower-case hex digits.
ClusterId NewClusterId(Rng& rng);

}  // namespace towline

#endif  // TOWLINE_COMMON_RNG_H_
