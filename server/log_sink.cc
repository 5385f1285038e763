#include "server/log_sink.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "common/clock.h"

namespace towline {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

bool NeedsQuotes(const std::string& value) {
  return value.empty() || value.find_first_of(" \t\r\n\"=") != std::string::npos;
}

std::string Quote(const std::string& value) {
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class LogSink final : public Logger {
 public:
  LogSink(const std::string& level, bool json, std::string node_id) : json_(json), node_id_(std::move(node_id)) {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    logger_ = std::make_shared<spdlog::logger>("towline", std::move(sink));
    logger_->set_level(level == "debug"     ? spdlog::level::debug
                       : level == "warning" ? spdlog::level::warn
                       : level == "error"   ? spdlog::level::err
                                            : spdlog::level::info);
    logger_->set_pattern(json ? "%v" : "%Y-%m-%dT%H:%M:%S.%e%z %L %v");
    logger_->flush_on(spdlog::level::trace);
  }

  void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) override {
    const auto spd_level = ToSpdlog(level);
    if (!logger_->should_log(spd_level)) return;
    logger_->log(spd_level, json_ ? Json(level, event, fields) : Text(event, fields));
  }

 private:
  std::string Text(absl::string_view event, std::initializer_list<LogField> fields) const {
    std::string line = absl::StrCat(event, " node=", node_id_);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=", NeedsQuotes(field.value) ? Quote(field.value) : field.value);
    }
    return line;
  }

  std::string Json(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) const {
    nlohmann::ordered_json line;
    line["time_ms"] = SystemClock()->WallMicros() / 1000;
    line["level"] = level == LogLevel::kDebug     ? "debug"
                    : level == LogLevel::kInfo    ? "info"
                    : level == LogLevel::kWarning ? "warning"
                                                  : "error";
    line["event"] = std::string(event);
    line["node"] = node_id_;
    for (const LogField& field : fields) line[field.key] = field.value;
    return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

  const bool json_;
  const std::string node_id_;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace

std::unique_ptr<Logger> NewLogSink(const std::string& level, const std::string& format, const std::string& node_id) {
  return std::make_unique<LogSink>(level, format == "json", node_id);
}

}  // namespace towline
