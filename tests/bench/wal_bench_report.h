// What a benchmark found: figures beside their targets, as text while it runs and as JSON at the end.

#ifndef TOWLINE_TESTS_BENCH_WAL_BENCH_REPORT_H_
#define TOWLINE_TESTS_BENCH_WAL_BENCH_REPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace towline::bench {

// --- Statistics of samples, which may be in any order; 0 of none ---

double Median(std::vector<double> samples);
double Quantile(std::vector<double> samples, double q);
double Highest(const std::vector<double>& samples);
// How far apart the samples are: highest / lowest - 1.
double Spread(const std::vector<double>& samples);

// Between the rounds of one run; above it a figure is marked as noisy.
inline constexpr double kQuietSpread = 0.2;

// What a figure should be.
struct Target {
  enum class Kind { kNone, kAtLeast, kAtMost };
  Kind kind = Kind::kNone;
  double value = 0;

  static Target None() { return {}; }
  static Target AtLeast(double value) { return {Kind::kAtLeast, value}; }
  static Target AtMost(double value) { return {Kind::kAtMost, value}; }
};

struct Figure {
  std::string name;
  double value = 0;
  std::string unit;
  Target target;
  double spread = 0;  // of the yardstick between rounds
  std::string limit;  // what binds, where it is known
  std::vector<std::pair<std::string, double>> details;

  const char* verdict() const;  // met, missed, or - without a target
  bool noisy() const { return spread > kQuietSpread; }
};

class Report {
 public:
  void BeginPart(const std::string& name, const std::string& what);
  // Prints the figure at once.
  void Add(Figure figure);

  // Everything so far, as one JSON object.
  absl::Status WriteJson(const std::string& path) const;

 private:
  struct Part {
    std::string name;
    std::string what;
    std::vector<Figure> figures;
  };
  std::vector<Part> parts_;
};

}  // namespace towline::bench

#endif  // TOWLINE_TESTS_BENCH_WAL_BENCH_REPORT_H_
