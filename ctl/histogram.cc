#include "ctl/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

namespace towline::ctl {
namespace {

constexpr int kSubBits = 7;
constexpr uint64_t kSub = uint64_t{1} << kSubBits;  // buckets per power of two
constexpr int kMaxBits = 40;

// Values below 2 * kSub have a bucket each; above, the top kSubBits + 1 bits choose the bucket.
size_t BucketOf(uint64_t value) {
  value = std::min(value, uint64_t{1} << kMaxBits);
  if (value < 2 * kSub) return value;
  const int shift = std::bit_width(value) - (kSubBits + 1);
  return static_cast<size_t>(shift) * kSub + (value >> shift);
}

uint64_t BucketEnd(size_t bucket) {
  if (bucket < 2 * kSub) return bucket;
  const int shift = static_cast<int>(bucket / kSub) - 1;
  const uint64_t top = bucket - static_cast<size_t>(shift) * kSub;
  return ((top + 1) << shift) - 1;
}

}  // namespace

Histogram::Histogram() : counts_(BucketOf(uint64_t{1} << kMaxBits) + 1, 0) {}

void Histogram::Add(uint64_t value) {
  ++counts_[BucketOf(value)];
  ++count_;
  sum_ += value;
  max_ = std::max(max_, value);
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
}

uint64_t Histogram::Quantile(double quantile) const {
  if (count_ == 0) return 0;
  const double exact = std::clamp(quantile, 0.0, 1.0) * static_cast<double>(count_);
  const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(exact)));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::min(BucketEnd(i), max_);
  }
  return max_;
}

}  // namespace towline::ctl
