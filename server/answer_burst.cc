#include "server/answer_burst.h"

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <chrono>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace towline {
namespace {

// Fewer answers to one connection are not worth the two system calls more.
constexpr size_t kBurstMin = 4;
// Answers in one segment. Fewer save less, more let the client wait.
constexpr size_t kSegmentAnswers = 8;
constexpr int64_t kScanMicros = 1'000'000;

int64_t NowMicros() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

// Empty: the descriptor is no connected TCP socket.
std::string PeerOf(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return "";
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return absl::StrCat("ipv4:", text, ":", ntohs(v4.sin_port));
  }
  if (storage.ss_family != AF_INET6) return "";
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof(text));
    return absl::StrCat("ipv4:", text, ":", ntohs(v6.sin6_port));
  }
  inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  return absl::StrCat("ipv6:%5B", text, "%5D:", ntohs(v6.sin6_port));
}

// Without effect on what is no TCP socket. The kernel sends what is gathered after 200 ms at the latest.
void SetCork(int fd, int on) { setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)); }

}  // namespace

int SocketsByPeer::Find(const std::string& peer) {
  const auto found = sockets_.find(peer);
  if (found != sockets_.end()) {
    if (PeerOf(found->second) == peer) return found->second;
    sockets_.erase(found);
  }
  const int64_t now = NowMicros();
  if (scanned_micros_ != 0 && now - scanned_micros_ < kScanMicros) return -1;
  scanned_micros_ = now;
  Scan();
  const auto again = sockets_.find(peer);
  return again == sockets_.end() ? -1 : again->second;
}

void SocketsByPeer::Scan() {
  sockets_.clear();
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) return;
  const auto close = absl::MakeCleanup([directory] { closedir(directory); });
  while (const dirent* const entry = readdir(directory)) {
    const std::string name = entry->d_name;
    int fd = -1;
    if (std::from_chars(name.data(), name.data() + name.size(), fd).ec != std::errc()) continue;
    std::string peer = PeerOf(fd);
    if (!peer.empty()) sockets_.emplace(std::move(peer), fd);
  }
}

void AnswerBurst::Send(std::vector<PendingAnswer*>* answers) {
  if (answers->size() < kBurstMin) {
    for (PendingAnswer* const answer : *answers) answer->Send();
    answers->clear();
    return;
  }
  by_peer_.clear();
  for (PendingAnswer* const answer : *answers) by_peer_.emplace_back(answer->Peer(), answer);
  answers->clear();
  std::stable_sort(by_peer_.begin(), by_peer_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  size_t first = 0;
  for (size_t i = 1; i <= by_peer_.size(); ++i) {
    if (i < by_peer_.size() && by_peer_[i].first == by_peer_[first].first) continue;
    SendTo(by_peer_[first].first, first, i);
    first = i;
  }
}

void AnswerBurst::SendTo(const std::string& peer, size_t first, size_t last) {
  const int fd = last - first < kBurstMin ? -1 : sockets_.Find(peer);
  while (first < last) {
    const size_t end = std::min(last, first + kSegmentAnswers);
    if (fd >= 0) SetCork(fd, 1);
    for (; first < end; ++first) by_peer_[first].second->Send();
    if (fd >= 0) SetCork(fd, 0);
  }
}

}  // namespace towline
