// One change of primary at a time: a flag that is held over its whole course.

#ifndef TOWLINE_SERVER_FAILOVER_RUNNING_H_
#define TOWLINE_SERVER_FAILOVER_RUNNING_H_

#include <atomic>

namespace towline {

class FailoverRunning {
 public:
  explicit FailoverRunning(std::atomic<bool>* flag) : flag_(flag), begun_(!flag->exchange(true)) {}
  ~FailoverRunning() {
    if (begun_) flag_->store(false);
  }
  FailoverRunning(const FailoverRunning&) = delete;
  FailoverRunning& operator=(const FailoverRunning&) = delete;

  // False: another one holds it.
  bool begun() const { return begun_; }

 private:
  std::atomic<bool>* const flag_;
  const bool begun_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_FAILOVER_RUNNING_H_
