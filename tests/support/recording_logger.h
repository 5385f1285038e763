// A logger that keeps what was logged.

#ifndef TOWLINE_TESTS_SUPPORT_RECORDING_LOGGER_H_
#define TOWLINE_TESTS_SUPPORT_RECORDING_LOGGER_H_

#include <map>
#include <string>
#include <vector>

#include "common/logger.h"
#include "common/mutex.h"

namespace towline::test {

// Threads: all methods from any thread.
class RecordingLogger : public Logger {
 public:
  struct Event {
    LogLevel level;
    std::string name;
    std::map<std::string, std::string> fields;
  };

  void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) override {
    Event recorded{level, std::string(event), {}};
    for (const LogField& field : fields) recorded.fields[field.key] = field.value;
    MutexLock lock(&mutex_);
    events_.push_back(std::move(recorded));
  }

  // The events called `name`, or all if it is empty, oldest first.
  std::vector<Event> Events(absl::string_view name = "") const {
    MutexLock lock(&mutex_);
    std::vector<Event> found;
    for (const Event& event : events_) {
      if (name.empty() || name == event.name) found.push_back(event);
    }
    return found;
  }

 private:
  mutable Mutex mutex_;
  std::vector<Event> events_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_RECORDING_LOGGER_H_
