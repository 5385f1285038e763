// How far a long verb is, on one line of a terminal that is written over.

#ifndef TOWLINE_CTL_PROGRESS_LINE_H_
#define TOWLINE_CTL_PROGRESS_LINE_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

#include "ctl/app.h"

namespace towline::ctl {

// Writes nothing where standard error is no terminal.
// Threads: external synchronization.
class ProgressLine {
 public:
  // `what` is being done to `total` bytes: "verifying". Begins now.
  ProgressLine(Context& context, std::string what, uint64_t total);
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Several times a second, whatever the number of calls: "verifying  40%  350 MiB/s  ETA 5 s  more".
  void Show(uint64_t bytes, absl::string_view more = "");

  // The same with words of one's own instead of rate and share.
  void ShowText(absl::string_view text);

  void Clear();

  // Since the beginning.
  double seconds() const;

 private:
  using SteadyClock = std::chrono::steady_clock;

  bool IsDue();

  Context& context_;
  const std::string what_;
  const uint64_t total_;
  const SteadyClock::time_point begin_ = SteadyClock::now();
  SteadyClock::time_point shown_ = begin_;
  bool visible_ = false;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_PROGRESS_LINE_H_
