// How a piece of the controller's work ended.

#ifndef TOWLINE_REPLICA_STAGE_RESULT_H_
#define TOWLINE_REPLICA_STAGE_RESULT_H_

#include <cstdint>
#include <utility>

#include "absl/status/status.h"

namespace towline {

struct StageResult {
  enum class Kind {
    kGoOn,        // call Step again
    kDone,        // all of it is done
    kReconnect,   // the stream is over: connect again after a pause
    kRetryAfter,  // the upstream has no room now: connect again after the pause that it asks for
    kBadFrames,   // the upstream sent what does not continue our log: reset, connect again
    kHalt,        // something outside must change; shown as halted, tried again with longer pauses
    kFatal,       // this node cannot go on
  };
  Kind kind = Kind::kGoOn;
  absl::Status status;       // why; OK for kGoOn and kDone
  int64_t pause_micros = 0;  // of kRetryAfter

  static StageResult GoOn() { return {}; }
  static StageResult Done() { return {Kind::kDone, {}, 0}; }
  static StageResult Reconnect(absl::Status status) { return {Kind::kReconnect, std::move(status), 0}; }
  static StageResult RetryAfter(absl::Status status, int64_t micros) {
    return {Kind::kRetryAfter, std::move(status), micros};
  }
  static StageResult BadFrames(absl::Status status) { return {Kind::kBadFrames, std::move(status), 0}; }
  static StageResult Halt(absl::Status status) { return {Kind::kHalt, std::move(status), 0}; }
  static StageResult Fatal(absl::Status status) { return {Kind::kFatal, std::move(status), 0}; }
};

}  // namespace towline

#endif  // TOWLINE_REPLICA_STAGE_RESULT_H_
