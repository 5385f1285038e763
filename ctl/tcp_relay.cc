#include "ctl/tcp_relay.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "common/error.h"

namespace towline::ctl {
namespace {

constexpr size_t kBufferBytes = 1u << 16;

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

bool SendAll(int fd, const char* data, ssize_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, data, static_cast<size_t>(size), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data += sent;
    size -= sent;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TcpRelay>> TcpRelay::Start(int port, int target_port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  const sockaddr_in address = Loopback(port);
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener, 64) != 0) {
    const int error = errno;
    if (listener >= 0) close(listener);
    return MakeError(absl::StatusCode::kInternal, "relay_failed",
                     absl::StrCat("a relay cannot listen on 127.0.0.1:", port, ": ", strerror(error)));
  }
  std::unique_ptr<TcpRelay> relay(new TcpRelay(listener, port, target_port));
  relay->acceptor_ = std::thread([self = relay.get()] { self->Accept(); });
  return relay;
}

TcpRelay::~TcpRelay() {
  std::vector<std::thread> copies;
  {
    MutexLock lock(&mutex_);
    ending_ = true;
    changed_.NotifyAll();
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  {
    MutexLock lock(&mutex_);
    for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
    copies.swap(copies_);
  }
  for (std::thread& copy : copies) copy.join();
  MutexLock lock(&mutex_);
  for (const int fd : sockets_) close(fd);
}

std::string TcpRelay::endpoint() const { return absl::StrCat("127.0.0.1:", port_); }

void TcpRelay::Cut() {
  MutexLock lock(&mutex_);
  cut_ = true;
}

void TcpRelay::Heal() {
  MutexLock lock(&mutex_);
  cut_ = false;
  changed_.NotifyAll();
}

void TcpRelay::Accept() {
  for (;;) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0 && errno != EINTR && errno != ECONNABORTED) return;
    if (client < 0) continue;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(target_port_);
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      close(server);
      close(client);  // the node is down: the other end sees that
      continue;
    }
    MutexLock lock(&mutex_);
    sockets_.insert(sockets_.end(), {client, server});
    copies_.emplace_back([this, client, server] { Copy(client, server); });
    copies_.emplace_back([this, client, server] { Copy(server, client); });
  }
}

bool TcpRelay::MayPass() {
  MutexLock lock(&mutex_);
  while (cut_ && !ending_) changed_.Wait(&mutex_);
  return !ending_;
}

void TcpRelay::Copy(int from, int to) {
  std::vector<char> buffer(kBufferBytes);
  for (;;) {
    const ssize_t size = recv(from, buffer.data(), buffer.size(), 0);
    if (size <= 0 || !MayPass() || !SendAll(to, buffer.data(), size)) break;
  }
  (void)MayPass();  // the end of a connection does not pass either
  shutdown(from, SHUT_RDWR);
  shutdown(to, SHUT_RDWR);
}

}  // namespace towline::ctl
