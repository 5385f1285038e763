// What the controller calls the state that it is in.

#include <string>

#include "replica/controller.h"

namespace towline {

std::string Controller::StateName() const {
  if (!halt_reason_.empty()) return "halted";
  if (IsRewinding()) return "rewinding";
  if (phase_ == Phase::kBootstrap || phase_ == Phase::kInstall) return "bootstrapping";
  if (phase_ != Phase::kStream) return staged_ != nullptr ? "bootstrapping" : "disconnected";
  if (ReplaysStaged()) return "bootstrapping";
  if (stage_->progress().stalled) return "stalled";
  return stage_->progress().caught_up ? "streaming" : "catching_up";
}

std::string Controller::UpstreamStateName() const {
  switch (phase_) {
    case Phase::kStream:
      return "streaming";
    case Phase::kBootstrap:
    case Phase::kInstall:
      return "bootstrapping";
    case Phase::kRewind:
      return "rewinding";
    case Phase::kPause:
      return paused_state_;
    case Phase::kStopped:
      return "disconnected";
    default:
      return "connecting";
  }
}

}  // namespace towline
