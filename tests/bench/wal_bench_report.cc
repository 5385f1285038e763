#include "tests/bench/wal_bench_report.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

namespace towline::bench {

double Quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0;
  const size_t rank = std::min(samples.size() - 1, static_cast<size_t>(q * static_cast<double>(samples.size())));
  std::nth_element(samples.begin(), samples.begin() + static_cast<ptrdiff_t>(rank), samples.end());
  return samples[rank];
}

double Median(std::vector<double> samples) { return Quantile(std::move(samples), 0.5); }

double Highest(const std::vector<double>& samples) {
  return samples.empty() ? 0 : *std::max_element(samples.begin(), samples.end());
}

double Spread(const std::vector<double>& samples) {
  if (samples.empty()) return 0;
  const double lowest = *std::min_element(samples.begin(), samples.end());
  return lowest > 0 ? Highest(samples) / lowest - 1 : 0;
}

const char* Figure::verdict() const {
  switch (target.kind) {
    case Target::Kind::kNone:
      break;
    case Target::Kind::kAtLeast:
      return value >= target.value ? "met" : "missed";
    case Target::Kind::kAtMost:
      return value <= target.value ? "met" : "missed";
  }
  return "-";
}

void Report::BeginPart(const std::string& name, const std::string& what) {
  parts_.push_back({name, what, {}});
  std::printf("\n%s: %s\n", name.c_str(), what.c_str());
  std::fflush(stdout);
}

void Report::Add(Figure figure) {
  const char* const sign = figure.target.kind == Target::Kind::kAtLeast ? ">=" : "<=";
  const std::string target =
      figure.target.kind == Target::Kind::kNone ? "" : absl::StrCat("target ", sign, " ", figure.target.value);
  std::printf("  %-44s %10.5g %-10s %-18s %-6s", figure.name.c_str(), figure.value, figure.unit.c_str(), target.c_str(),
              figure.verdict());
  if (figure.noisy()) std::printf(" noisy (%.0f %%)", figure.spread * 100);
  for (const auto& [name, value] : figure.details) std::printf("  %s %.4g", name.c_str(), value);
  if (!figure.limit.empty()) std::printf("  [limit: %s]", figure.limit.c_str());
  std::printf("\n");
  std::fflush(stdout);
  parts_.back().figures.push_back(std::move(figure));
}

absl::Status Report::WriteJson(const std::string& path) const {
  nlohmann::ordered_json root;
  root["benchmark"] = "wal";
  for (const Part& part : parts_) {
    nlohmann::ordered_json figures = nlohmann::ordered_json::array();
    for (const Figure& figure : part.figures) {
      nlohmann::ordered_json entry;
      entry["name"] = figure.name;
      entry["value"] = figure.value;
      entry["unit"] = figure.unit;
      if (figure.target.kind != Target::Kind::kNone) {
        entry[figure.target.kind == Target::Kind::kAtLeast ? "target_at_least" : "target_at_most"] =
            figure.target.value;
        entry["verdict"] = figure.verdict();
      }
      entry["noisy"] = figure.noisy();
      entry["spread"] = figure.spread;
      if (!figure.limit.empty()) entry["limit"] = figure.limit;
      for (const auto& [name, value] : figure.details) entry["details"][name] = value;
      figures.push_back(std::move(entry));
    }
    root["parts"].push_back({{"name", part.name}, {"what", part.what}, {"figures", std::move(figures)}});
  }
  std::ofstream file(path, std::ios::trunc);
  file << root.dump(2) << '\n';
  file.close();
  return file ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot write ", path));
}

}  // namespace towline::bench
