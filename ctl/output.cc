#include "ctl/output.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/check.h"
#include "common/error.h"
#include "common/names.h"

namespace towline::ctl {
namespace {

// Terminal output must not carry control characters of a peer.
std::string OneLine(absl::string_view text) {
  std::string line;
  for (const char c : text) line.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c);
  return line;
}

bool IsNumber(absl::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.-") == absl::string_view::npos;
}

}  // namespace

int ExitCodeOf(const absl::Status& error) {
  if (error.ok()) return kExitOk;
  const std::string reason = GetErrorInfo(error).reason;
  if (reason == "usage") return kExitUsage;
  if (reason == "not_primary") return kExitNotPrimary;
  const bool refused = absl::IsFailedPrecondition(error) || absl::IsAborted(error) || reason == "condition_failed";
  return refused ? kExitRefused : kExitError;
}

absl::Status UsageError(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "usage", message, "see --help of the verb");
}

int PrintError(std::ostream& err, bool json, const absl::Status& error) {
  const ErrorInfo info = GetErrorInfo(error);
  if (json) {
    Json metadata = Json::object();
    for (const auto& [key, value] : info.metadata) metadata[key] = value;
    Json body = Json::object();
    body["reason"] = info.reason;
    body["message"] = info.message;
    body["next_action"] = info.next_action;
    body["metadata"] = std::move(metadata);
    Json document = Json::object();
    document["error"] = std::move(body);
    err << JsonText(document) << std::endl;
  } else {
    err << "error: " << OneLine(info.reason) << ": " << OneLine(info.message) << "\n";
    if (!info.next_action.empty()) err << "  next: " << OneLine(info.next_action) << "\n";
    err.flush();
  }
  return ExitCodeOf(error);
}

void PrintJson(std::ostream& out, bool terminal, const Json& json) { out << JsonText(json, terminal ? 2 : -1) << "\n"; }

Table::Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }

void Table::Add(std::vector<std::string> row) {
  TOWLINE_CHECK(row.size() == rows_[0].size());
  rows_.push_back(std::move(row));
}

void Table::Print(std::ostream& out, absl::string_view indent) const {
  const size_t columns = rows_[0].size();
  std::vector<size_t> widths(columns, 0);
  std::vector<bool> right(columns, rows_.size() > 1);
  for (size_t r = 0; r < rows_.size(); ++r) {
    for (size_t c = 0; c < columns; ++c) {
      widths[c] = std::max(widths[c], rows_[r][c].size());
      if (r > 0 && !IsNumber(rows_[r][c])) right[c] = false;
    }
  }
  for (const std::vector<std::string>& row : rows_) {
    std::string line(indent);
    for (size_t c = 0; c < columns; ++c) {
      const std::string padding(widths[c] - row[c].size(), ' ');
      if (c > 0) line += "  ";
      line += right[c] ? padding + row[c] : row[c] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  }
}

std::string EnumText(const Json& value) { return value.is_string() ? value.get<std::string>() : JsonText(value); }

std::string FormatSeconds(double seconds) {
  constexpr double kMinute = 60;
  constexpr double kHour = 60 * kMinute;
  constexpr double kDay = 24 * kHour;
  if (seconds == 0) return "0 s";
  if (seconds < 1e-3) return absl::StrFormat("%.1f us", seconds * 1e6);
  if (seconds < 1) return absl::StrFormat("%.2f ms", seconds * 1e3);
  if (seconds < 2 * kMinute) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 2 * kHour) return absl::StrFormat("%.1f min", seconds / kMinute);
  if (seconds < 2 * kDay) return absl::StrFormat("%.1f h", seconds / kHour);
  if (seconds < 1000 * kDay) return absl::StrFormat("%.1f d", seconds / kDay);
  return "> 1000 d";
}

std::string FormatSecondsOrNever(bool comes, double seconds) { return comes ? FormatSeconds(seconds) : "never"; }

std::string FormatRate(double bytes_per_second) {
  if (!std::isfinite(bytes_per_second)) return "-";
  const double size = std::min(std::abs(bytes_per_second), 0x1p63);
  return absl::StrCat(bytes_per_second <= -1 ? "-" : "", FormatBytes(static_cast<uint64_t>(size)), "/s");
}

}  // namespace towline::ctl
