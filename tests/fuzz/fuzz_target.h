// What a fuzz target is made of. Each target is one file that defines the three functions below; it is linked either
// with libFuzzer and mutator.cc, or with replay_main.cc, which runs inputs from files.
//
// A target never allows itself to be lenient about the code under test: a broken property ends the process.

#ifndef TOWLINE_TESTS_FUZZ_FUZZ_TARGET_H_
#define TOWLINE_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

// Runs one input. Returns 0; a broken property aborts.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace towline::fuzz {

struct Seed {
  std::string name;  // of the file
  std::string bytes;
};

// Inputs to start from: valid ones, and some with the damage that the formats' documents name.
std::vector<Seed> Seeds();

// Makes the checksums in a mutated input right again, in place, so that what lies behind them is reached.
void FixInput(absl::Span<char> input);

// Takes values from the front of an input; behind its end everything is 0 and empty.
class Input {
 public:
  explicit Input(absl::string_view bytes) : bytes_(bytes), size_(bytes.size()) {}
  Input(const uint8_t* data, size_t size) : Input({reinterpret_cast<const char*>(data), size}) {}

  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint16_t U16() { return static_cast<uint16_t>(Number(2)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  // 0 to end - 1. Requires end > 0.
  size_t Below(size_t end) { return static_cast<size_t>(end <= 256 ? U8() : U16()) % end; }
  absl::string_view Bytes(size_t size);
  absl::string_view Rest() { return Bytes(bytes_.size()); }

  bool empty() const { return bytes_.empty(); }
  size_t offset() const { return size_ - bytes_.size(); }  // of what comes next

 private:
  uint64_t Number(size_t size);

  absl::string_view bytes_;
  size_t size_;
};

// Ends the process, naming the property that does not hold.
[[noreturn]] void Broken(const char* file, int line, const char* property, absl::string_view details);

}  // namespace towline::fuzz

// The property `condition` must hold; `details` is a string for whoever looks at the crash.
#define FUZZ_EXPECT(condition, details) \
  ((condition) ? (void)0 : ::towline::fuzz::Broken(__FILE__, __LINE__, #condition, (details)))

#endif  // TOWLINE_TESTS_FUZZ_FUZZ_TARGET_H_
