// A rate limit on bytes that are counted after they were sent.

#ifndef TOWLINE_PRIMARY_TOKEN_BUCKET_H_
#define TOWLINE_PRIMARY_TOKEN_BUCKET_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace towline {

// What a stream sends at once under a limit, where it can choose: the processors are free again within a millisecond.
inline constexpr size_t kPacedPieceBytes = 128 << 10;

// A token bucket whose level may become negative: the last piece before the limit goes whole, and the next one waits
// until it is paid for. What was saved in pauses is at most a tenth of a second's worth. The rate, in bytes a second,
// may be another one each time. Times are monotonic microseconds. Threads: external synchronization.
class TokenBucket {
 public:
  bool MaySend(double rate, int64_t now_micros) {
    tokens_ += rate * static_cast<double>(now_micros - micros_) / 1e6;
    tokens_ = std::min(tokens_, rate * kBurstSeconds);
    micros_ = now_micros;
    return tokens_ > 0;
  }

  void Sent(uint64_t bytes) { tokens_ -= static_cast<double>(bytes); }

 private:
  static constexpr double kBurstSeconds = 0.1;

  double tokens_ = 0;
  int64_t micros_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_TOKEN_BUCKET_H_
