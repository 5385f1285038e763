#include "ctl/progress_line.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace towline::ctl {
namespace {

constexpr auto kInterval = std::chrono::milliseconds(200);

}  // namespace

ProgressLine::ProgressLine(Context& context, std::string what, uint64_t total)
    : context_(context), what_(std::move(what)), total_(total) {}

double ProgressLine::seconds() const { return std::chrono::duration<double>(SteadyClock::now() - begin_).count(); }

bool ProgressLine::IsDue() {
  if (!context_.environment().err_is_terminal) return false;
  const SteadyClock::time_point now = SteadyClock::now();
  if (now - shown_ < kInterval) return false;
  shown_ = now;
  visible_ = true;
  return true;
}

void ProgressLine::ShowText(absl::string_view text) {
  if (IsDue()) context_.err() << "\r\033[K" << what_ << "  " << text << std::flush;
}

void ProgressLine::Show(uint64_t bytes, absl::string_view more) {
  if (!IsDue()) return;
  const double rate = static_cast<double>(bytes) / std::max(seconds(), 1e-3);
  std::string line = absl::StrCat(what_, "  ", FormatRate(rate));
  if (total_ > 0 && bytes > 0) {
    const double share = static_cast<double>(bytes) / static_cast<double>(total_);
    const double left = static_cast<double>(total_ - std::min(bytes, total_)) / rate;
    line += absl::StrFormat("  %3.0f%%  ETA %.0f s", 100 * share, left);
  }
  context_.err() << "\r\033[K" << line << (more.empty() ? "" : "  ") << more << std::flush;
}

void ProgressLine::Clear() {
  if (visible_) context_.err() << "\r\033[K" << std::flush;
  visible_ = false;
}

}  // namespace towline::ctl
