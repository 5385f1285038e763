// Tests of AnswerBurst over real sockets on loopback.

#include "server/answer_burst.h"

#include <algorithm>
#include <arpa/inet.h>
#include <deque>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "absl/strings/str_cat.h"

#include "gtest/gtest.h"

namespace towline {
namespace {

// Both ends of a connection over 127.0.0.1 or [::1].
class Connection {
 public:
  explicit Connection(bool v6) : v6_(v6) {
    const int listener = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
    sockaddr_storage address = Loopback();
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), Size()), 0);
    EXPECT_EQ(listen(listener, 1), 0);
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
    client_ = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
    EXPECT_EQ(connect(client_, reinterpret_cast<sockaddr*>(&address), Size()), 0);
    server_ = accept(listener, nullptr, nullptr);
    EXPECT_GE(server_, 0);
    close(listener);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    close(client_);
    close(server_);
  }

  int server() const { return server_; }

  // As grpc::ServerContext::peer writes it.
  std::string Peer() const {
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    EXPECT_EQ(getsockname(client_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    if (v6_) return absl::StrCat("ipv6:%5B::1%5D:", ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port));
    return absl::StrCat("ipv4:127.0.0.1:", ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port));
  }

  std::string Read(size_t size) const {
    std::string text(size, '\0');
    EXPECT_EQ(recv(client_, text.data(), size, MSG_WAITALL), static_cast<ssize_t>(size));
    return text;
  }

  bool corked() const {
    int on = -1;
    socklen_t size = sizeof(on);
    EXPECT_EQ(getsockopt(server_, IPPROTO_TCP, TCP_CORK, &on, &size), 0);
    return on != 0;
  }

 private:
  sockaddr_storage Loopback() const {
    sockaddr_storage address{};
    if (v6_) {
      reinterpret_cast<sockaddr_in6&>(address).sin6_family = AF_INET6;
      reinterpret_cast<sockaddr_in6&>(address).sin6_addr = in6addr_loopback;
    } else {
      reinterpret_cast<sockaddr_in&>(address).sin_family = AF_INET;
      reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    return address;
  }
  socklen_t Size() const { return v6_ ? sizeof(sockaddr_in6) : sizeof(sockaddr_in); }

  const bool v6_;
  int client_ = -1;
  int server_ = -1;
};

// Writes one letter to a connection.
class Letter final : public PendingAnswer {
 public:
  Letter(const Connection& connection, char letter) : connection_(connection), letter_(letter) {}

  std::string Peer() const override { return connection_.Peer(); }
  void Send() override {
    was_corked_ = connection_.corked();
    EXPECT_EQ(send(connection_.server(), &letter_, 1, 0), 1);
  }
  bool was_corked() const { return was_corked_; }

 private:
  const Connection& connection_;
  const char letter_;
  bool was_corked_ = false;
};

class AnswerBurstTest : public ::testing::TestWithParam<bool> {
 protected:
  Letter& Add(const Connection& connection, char letter) {
    answers_.push_back(&letters_.emplace_back(connection, letter));
    return letters_.back();
  }

  std::deque<Letter> letters_;
  std::vector<PendingAnswer*> answers_;
  AnswerBurst burst_;
};

TEST_P(AnswerBurstTest, ManyAnswersToAConnectionAreGatheredAndAllArrive) {
  const Connection connection(GetParam());
  std::string expected;
  for (char letter = 'a'; letter <= 't'; ++letter) {
    Add(connection, letter);
    expected += letter;
  }
  burst_.Send(&answers_);
  EXPECT_TRUE(answers_.empty());
  EXPECT_TRUE(std::all_of(letters_.begin(), letters_.end(), [](const Letter& each) { return each.was_corked(); }));
  EXPECT_FALSE(connection.corked());
  EXPECT_EQ(connection.Read(expected.size()), expected);
}

TEST_P(AnswerBurstTest, FewToEachConnectionGoAsTheyAre) {
  const Connection one(GetParam());
  const Connection other(GetParam());
  for (const char letter : {'a', 'b', 'c'}) {
    Add(one, letter);
    Add(other, letter);
  }
  burst_.Send(&answers_);
  for (const Letter& letter : letters_) EXPECT_FALSE(letter.was_corked());
  EXPECT_EQ(one.Read(3), "abc");
  EXPECT_EQ(other.Read(3), "abc");
}

TEST_P(AnswerBurstTest, AConnectionThatIsNotFoundGetsItsAnswersToo) {
  auto gone = std::make_unique<Connection>(GetParam());
  for (const char letter : {'a', 'b', 'c', 'd'}) Add(*gone, letter);
  burst_.Send(&answers_);
  EXPECT_TRUE(letters_.front().was_corked());
  gone.reset();
  letters_.clear();
  // Found by a look at the descriptors, which is not made again so soon; and the old one may be this one's now.
  const Connection next(GetParam());
  for (const char letter : {'e', 'f', 'g', 'h'}) Add(next, letter);
  burst_.Send(&answers_);
  EXPECT_EQ(next.Read(4), "efgh");
  EXPECT_FALSE(next.corked());
}

INSTANTIATE_TEST_SUITE_P(Families, AnswerBurstTest, ::testing::Values(false, true),
                         [](const auto& each) { return each.param ? "Ipv6" : "Ipv4"; });

}  // namespace
}  // namespace towline
