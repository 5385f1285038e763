// Answers of unary calls that are ready together, as when one sync has made many writes durable.
//
// gRPC sends each answer with a system call and a segment of its own, and each segment wakes the client. The answers to
// one connection are gathered by the kernel instead (TCP_CORK, tcp(7)), a few to a segment: the client works on the
// first while the next are made. gRPC does not tell its sockets, so they are found among the process's own by the
// address of the peer; where none is found, nothing is gathered.

#ifndef TOWLINE_SERVER_ANSWER_BURST_H_
#define TOWLINE_SERVER_ANSWER_BURST_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace towline {

// An answer that waits for its thread.
class PendingAnswer {
 public:
  // The other end, as grpc::ServerContext::peer.
  virtual std::string Peer() const = 0;
  // Sends it; the object may be gone afterwards.
  virtual void Send() = 0;

 protected:
  ~PendingAnswer() = default;
};

// The TCP sockets of this process, by the address of the peer as grpc::ServerContext::peer writes it.
// Threads: external synchronization.
class SocketsByPeer {
 public:
  // The socket that is connected to `peer`, or -1. Looks at the process's descriptors for a peer that it does not know,
  // once a second at most. The descriptor is another's: it may be closed at any moment.
  int Find(const std::string& peer);

 private:
  void Scan();

  std::map<std::string, int> sockets_;
  int64_t scanned_micros_ = 0;
};

// Threads: external synchronization.
class AnswerBurst {
 public:
  // Sends all, those of one connection in their order, and empties *answers.
  void Send(std::vector<PendingAnswer*>* answers);

 private:
  void SendTo(const std::string& peer, size_t first, size_t last);

  SocketsByPeer sockets_;
  std::vector<std::pair<std::string, PendingAnswer*>> by_peer_;  // kept for its memory
};

}  // namespace towline

#endif  // TOWLINE_SERVER_ANSWER_BURST_H_
