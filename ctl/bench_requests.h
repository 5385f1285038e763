// Requests of a benchmark, encoded once; per call only the key's digits change.

#ifndef TOWLINE_CTL_BENCH_REQUESTS_H_
#define TOWLINE_CTL_BENCH_REQUESTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "towline/v1/kv_service.pb.h"

namespace towline::ctl {

// "bench-" and 12 digits.
inline constexpr size_t kBenchKeySize = 18;
std::string BenchKey(uint64_t number);

// Incompressible, and the same in every run.
std::string BenchValue(size_t size);

// An encoded message and where its keys' digits stand.
struct RequestTemplate {
  std::string bytes;
  std::vector<size_t> digits;  // offsets of 12 digits each
};

// Writes 12 decimal digits of `number` to `to`.
void PutDigits(char* to, uint64_t number);

// Put of one key with a value of random bytes.
RequestTemplate WriteTemplate(size_t value_size, const std::optional<v1::Durability>& durability = std::nullopt);
RequestTemplate GetTemplate();
RequestTemplate PingTemplate(size_t payload_size);
// The elements of a WriteStreamRequest, without first_sequence, which the caller puts in front.
RequestTemplate StreamTemplate(size_t value_size, size_t batch,
                               const std::optional<v1::Durability>& durability = std::nullopt);

// Encoded field first_sequence.
std::string SequenceField(uint64_t sequence);

// A fast generator for the choice of keys.
class KeyChoice {
 public:
  KeyChoice(uint64_t seed, uint64_t key_space) : state_(seed | 1), key_space_(key_space) {}
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ % key_space_;
  }

 private:
  uint64_t state_;
  const uint64_t key_space_;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_BENCH_REQUESTS_H_
