// Latencies with bounded relative error and bounded memory.

#ifndef TOWLINE_CTL_HISTOGRAM_H_
#define TOWLINE_CTL_HISTOGRAM_H_

#include <cstdint>
#include <vector>

namespace towline::ctl {

// Log-linear: exact up to 255, then 128 buckets per power of two, so that a value is off by less than 1/128. Values
// above 2^40 (18 minutes in nanoseconds) count as that.
// Threads: external synchronization; one histogram per thread, merged at the end.
class Histogram {
 public:
  Histogram();

  void Add(uint64_t value);
  void Merge(const Histogram& other);

  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }  // exact
  double mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }

  // The smallest recorded value (rounded up to its bucket's end, never above max) such that at least the share
  // `quantile` (0..1) of all values is not above it. 0 if empty.
  uint64_t Quantile(double quantile) const;

 private:
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t max_ = 0;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_HISTOGRAM_H_
