#include "ctl/histogram.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

// The definition, from the sorted samples.
uint64_t ExactQuantile(const std::vector<uint64_t>& sorted, double quantile) {
  const double rank = std::ceil(quantile * static_cast<double>(sorted.size()));
  return sorted[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

TEST(Histogram, QuantilesAreWithinOneBucketOfTheSortedSamples) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(11, 2);
  Histogram histogram;
  std::vector<uint64_t> samples;
  for (int i = 0; i < 100'000; ++i) {
    samples.push_back(static_cast<uint64_t>(latency(random)));
    histogram.Add(samples.back());
  }
  std::sort(samples.begin(), samples.end());
  for (const double quantile : {0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const double exact = static_cast<double>(ExactQuantile(samples, quantile));
    const double measured = static_cast<double>(histogram.Quantile(quantile));
    EXPECT_GE(measured, exact) << quantile;
    EXPECT_LE(measured, exact * (1 + 1.0 / 128) + 1) << quantile;
  }
  EXPECT_EQ(histogram.max(), samples.back());
  EXPECT_EQ(histogram.count(), samples.size());
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram histogram;
  for (uint64_t value = 0; value < 256; ++value) histogram.Add(value);
  EXPECT_EQ(histogram.Quantile(0.5), 127u);
  EXPECT_EQ(histogram.Quantile(0), 0u);
  EXPECT_EQ(histogram.Quantile(1), 255u);
}

TEST(Histogram, EveryPowerOfTwoAndItsNeighboursKeepTheErrorBound) {
  for (int bits = 1; bits < 40; ++bits) {
    for (const int64_t offset : {-1, 0, 1}) {
      const uint64_t value = (uint64_t{1} << bits) + static_cast<uint64_t>(offset);
      Histogram histogram;
      histogram.Add(value);
      histogram.Add(UINT64_MAX);  // so that max() does not correct the bucket's end
      EXPECT_GE(histogram.Quantile(0.5), value);
      EXPECT_LE(histogram.Quantile(0.5), value + value / 128);
    }
  }
}

TEST(Histogram, AnEmptyOneIsZero) {
  EXPECT_EQ(Histogram().Quantile(0.5), 0u);
  EXPECT_EQ(Histogram().mean(), 0);
}

TEST(Histogram, MergingEqualsAddingAll) {
  Histogram a;
  Histogram b;
  Histogram all;
  for (uint64_t i = 0; i < 10'000; ++i) {
    (i % 3 == 0 ? a : b).Add(i * i);
    all.Add(i * i);
  }
  a.Merge(b);
  EXPECT_EQ(a.count(), all.count());
  EXPECT_EQ(a.mean(), all.mean());
  for (const double quantile : {0.1, 0.5, 0.99}) EXPECT_EQ(a.Quantile(quantile), all.Quantile(quantile));
}

}  // namespace
}  // namespace towline::ctl
