// Results on standard output, errors on standard error, exit codes.

#ifndef TOWLINE_CTL_OUTPUT_H_
#define TOWLINE_CTL_OUTPUT_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "client/proto_json.h"

namespace towline::ctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnhealthy = 3;
inline constexpr int kExitRefused = 4;
inline constexpr int kExitNotPrimary = 5;

// 5 for reason not_primary; 4 for a refusal: FAILED_PRECONDITION, ABORTED, or reason condition_failed; 2 for reason
// usage; else 1.
int ExitCodeOf(const absl::Status& error);

// An error of the arguments: reason usage, exit code 2.
absl::Status UsageError(absl::string_view message);

// Prints reason, message, next action and, as JSON, metadata. Returns the exit code. Requires !error.ok().
int PrintError(std::ostream& err, bool json, const absl::Status& error);

// One JSON document: indented on a terminal, else on one line.
void PrintJson(std::ostream& out, bool terminal, const Json& json);

// Columns, aligned, separated by two spaces; no trailing blanks. A number is right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void Add(std::vector<std::string> row);  // as many cells as the header
  void Print(std::ostream& out, absl::string_view indent = "") const;

 private:
  std::vector<std::vector<std::string>> rows_;  // header first
};

// The name of an enum in the JSON form; one of a newer server is a number.
std::string EnumText(const Json& value);

// In a readable unit, from "1.5 us" to "12.0 d"; "> 1000 d" beyond that.
std::string FormatSeconds(double seconds);

// A time that a forecast may not have: "never".
std::string FormatSecondsOrNever(bool comes, double seconds);

// "1.5 MiB/s", "-3 KiB/s".
std::string FormatRate(double bytes_per_second);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_OUTPUT_H_
