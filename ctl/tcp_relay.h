// A TCP relay that a drill puts in front of a node, so that the network to it can be cut.

#ifndef TOWLINE_CTL_TCP_RELAY_H_
#define TOWLINE_CTL_TCP_RELAY_H_

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

#include "common/mutex.h"

namespace towline::ctl {

// Forwards connections to one port of 127.0.0.1. While it is cut nothing passes in either direction and connections
// look alive to both ends, as with packets that are lost; what was sent meanwhile arrives when it heals. Threads: all
// methods from any thread.
class TcpRelay {
 public:
  // Listens on `port` of 127.0.0.1. INTERNAL, reason relay_failed.
  static absl::StatusOr<std::unique_ptr<TcpRelay>> Start(int port, int target_port);
  ~TcpRelay();  // ends all connections
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;

  std::string endpoint() const;
  void Cut() TOWLINE_EXCLUDES(mutex_);
  void Heal() TOWLINE_EXCLUDES(mutex_);

 private:
  TcpRelay(int listener, int port, int target_port) : listener_(listener), port_(port), target_port_(target_port) {}

  void Accept() TOWLINE_EXCLUDES(mutex_);
  // Copies from one socket to the other until either ends.
  void Copy(int from, int to) TOWLINE_EXCLUDES(mutex_);
  // Waits while it is cut; false when everything ends.
  bool MayPass() TOWLINE_EXCLUDES(mutex_);

  const int listener_;
  const int port_;
  const int target_port_;
  std::thread acceptor_;
  Mutex mutex_;
  CondVar changed_;
  bool cut_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool ending_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::vector<int> sockets_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<std::thread> copies_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_TCP_RELAY_H_
