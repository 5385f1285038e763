// Two copies of a small image as an input describes them, and what docs/formats/two_copy_v1.md makes of them.
//
// Input: flags, the length of copy a (2 bytes), copy a, copy b.

#ifndef TOWLINE_TESTS_FUZZ_TWO_COPY_INPUT_H_
#define TOWLINE_TESTS_FUZZ_TWO_COPY_INPUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "common/two_copy_file.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/sim_file_system.h"

namespace towline::fuzz {

struct TwoCopyInput {
  TwoCopyState state = TwoCopyState::kAbsent;
  bool use = false;                  // also write to what was read, which is slow
  std::vector<TwoCopyImage> newest;  // the whole copies with the highest sequence: one, or two that are equally new
};

// Puts the copies into `directory` of `fs`.
TwoCopyInput ReadTwoCopyInput(Input& input, const std::string& directory, const std::string& name, uint64_t magic,
                              test::SimFileSystem* fs);

// For FixInput. Also makes the magic and, in most inputs, the version right.
void FixTwoCopyInput(absl::Span<char> input, uint64_t magic, uint32_t version);

// Seeds: `copy` as both copies, alone, with an older one beside it, cut, and flipped.
std::vector<Seed> TwoCopySeeds(const std::string& copy);

}  // namespace towline::fuzz

#endif  // TOWLINE_TESTS_FUZZ_TWO_COPY_INPUT_H_
