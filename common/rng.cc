#include "common/rng.h"

#include <cerrno>
#include <sys/random.h>

#include "absl/strings/str_cat.h"

#include "common/check.h"

namespace towline {
namespace {

class KernelRng : public Rng {
 public:
  uint64_t Next() override {
    uint64_t value = 0;
    ssize_t got = 0;
    do {
      got = getrandom(&value, sizeof value, 0);
    } while (got < 0 && errno == EINTR);
    TOWLINE_CHECK(got == static_cast<ssize_t>(sizeof value));  // reads of up to 256 bytes are never short
    return value;
  }
};

}  // namespace

Rng* SystemRng() {
  static KernelRng* const rng = new KernelRng;
  return rng;
}

uint64_t NewId(Rng& rng) {
  uint64_t id = 0;
  while (id == 0) id = rng.Next();
  return id;
}

ClusterId NewClusterId(Rng& rng) {
  const uint64_t high = rng.Next();
  const uint32_t low = static_cast<uint32_t>(rng.Next());
  return absl::StrCat(absl::Hex(high, absl::kZeroPad16), absl::Hex(low, absl::kZeroPad8));
}

}  // namespace towline
