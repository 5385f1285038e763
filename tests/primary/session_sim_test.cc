// Pull sessions under everything that a network and the processes on it can do: see session_sim.h.
//
//   TOWLINE_SIM_SEED=N    that seed only
//   TOWLINE_LONG=1        many more seeds

#include "tests/primary/session_sim.h"

#include <cstdlib>
#include <iostream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace towline::test {
namespace {

constexpr int kSteps = 20'000;

std::vector<uint64_t> Seeds() {
  uint64_t seed = 0;
  const char* const only = std::getenv("TOWLINE_SIM_SEED");
  if (only != nullptr && absl::SimpleAtoi(only, &seed)) return {seed};
  const char* const form = std::getenv("TOWLINE_LONG");
  const uint64_t count = form != nullptr && std::string(form) == "1" ? 100 : 6;
  std::vector<uint64_t> seeds;
  for (uint64_t i = 1; i <= count; ++i) seeds.push_back(i);
  return seeds;
}

class SessionSimTest : public SessionSim, public ::testing::WithParamInterface<uint64_t> {};

TEST_P(SessionSimTest, NothingIsLostGainedOrMiscounted) {
  Run(GetParam(), kSteps);
  if (!HasFailure()) Heal();
  std::cout << "seed " << GetParam() << ": " << Story() << "\n";
  if (HasFailure()) std::cout << "again with: TOWLINE_SIM_SEED=" << GetParam() << "\n";
}

INSTANTIATE_TEST_SUITE_P(Seeds, SessionSimTest, ::testing::ValuesIn(Seeds()),
                         [](const auto& seed) { return absl::StrCat(seed.param); });

}  // namespace
}  // namespace towline::test
