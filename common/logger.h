// Structured log events. The core logs through this; `server` writes them out.

#ifndef TOWLINE_COMMON_LOGGER_H_
#define TOWLINE_COMMON_LOGGER_H_

#include <concepts>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace towline {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One key and its value. Values are numbers or text; the sink quotes what needs quoting.
struct LogField {
  LogField(absl::string_view k, const absl::AlphaNum& v) : key(k), value(v.Piece()) {}
  // A template, so that numbers and literals do not become bool on the way.
  template <std::same_as<bool> B>
  LogField(absl::string_view k, B v) : key(k), value(v ? "true" : "false") {}

  std::string key;    // lower_snake_case
  std::string value;
};

// Threads: Log may be called from any thread, and must not block on the disk of the data directory.
class Logger {
 public:
  virtual ~Logger() = default;

  // `event` is a stable lower_snake_case name, such as resync_decision.
  virtual void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) = 0;
};

// Drops everything. Lives for ever.
Logger* NullLogger();

}  // namespace towline

#endif  // TOWLINE_COMMON_LOGGER_H_
