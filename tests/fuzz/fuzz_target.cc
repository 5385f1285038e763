#include "tests/fuzz/fuzz_target.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace towline::fuzz {

absl::string_view Input::Bytes(size_t size) {
  const absl::string_view taken = bytes_.substr(0, size);
  bytes_.remove_prefix(taken.size());
  return taken;
}

uint64_t Input::Number(size_t size) {
  const absl::string_view bytes = Bytes(size);
  uint64_t number = 0;
  for (size_t i = bytes.size(); i > 0; --i) number = number << 8 | static_cast<uint8_t>(bytes[i - 1]);
  return number;
}

void Broken(const char* file, int line, const char* property, absl::string_view details) {
  std::fprintf(stderr, "%s:%d: broken: %s\n  %.*s\n", file, line, property, static_cast<int>(details.size()),
               details.data());
  std::abort();
}

}  // namespace towline::fuzz
