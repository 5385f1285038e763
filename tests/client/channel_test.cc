#include "client/channel.h"

#include <arpa/inet.h>
#include <chrono>
#include <cstdint>
#include <grpcpp/channel.h>
#include <map>
#include <memory>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline::client {
namespace {

TEST(Endpoint, HostAndPortPass) {
  for (const char* endpoint : {"127.0.0.1:7700", "localhost:1", "node-1.example:65535", "[::1]:7700", "my_host:80"}) {
    EXPECT_TRUE(ValidateEndpoint(endpoint).ok()) << endpoint;
  }
}

TEST(Endpoint, AnythingElseIsRefused) {
  for (const char* endpoint :
       {"", "localhost", ":7700", "localhost:", "localhost:0", "localhost:65536", "localhost:-1", "localhost:7700x",
        "::1:7700", "[]:1", "unix:///tmp/s", "dns:///a:1", "a b:1", "localhost:+80", "localhost: 80"}) {
    EXPECT_FALSE(ValidateEndpoint(endpoint).ok()) << endpoint;
  }
}

// --- What a connection tells its server (RFC 9113, 3.4 and 6.5) ---

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kPrefaceBytes = sizeof(kPreface) - 1;
constexpr size_t kFrameHeadBytes = 9;
constexpr size_t kSettingBytes = 6;
constexpr uint32_t kInitialWindowSize = 4;

uint32_t BigEndian(const std::string& bytes, size_t at, size_t size) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

bool Readable(int fd, int milliseconds) {
  pollfd wanted{fd, POLLIN, 0};
  return ::poll(&wanted, 1, milliseconds) == 1;
}

// A server that only listens to one connection.
class Listener {
 public:
  Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(fd_, 1), 0);
    EXPECT_EQ(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    endpoint_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~Listener() {
    if (connection_ >= 0) ::close(connection_);
    ::close(fd_);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  const std::string& endpoint() const { return endpoint_; }

  // Until it has sent something. gRPC works on a connection only while somebody waits for it.
  void Accept(grpc::Channel& channel) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    channel.GetState(/*try_to_connect=*/true);
    while (connection_ < 0 || !Readable(connection_, 0)) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      channel.WaitForStateChange(channel.GetState(false),
                                 std::chrono::system_clock::now() + std::chrono::milliseconds(10));
      if (connection_ < 0 && Readable(fd_, 0)) connection_ = ::accept(fd_, nullptr, nullptr);
    }
  }

  // Fewer if the peer closes, or sends nothing for 30 s.
  std::string Read(size_t size) {
    std::string bytes(size, '\0');
    size_t read = 0;
    while (read < size && Readable(connection_, 30'000)) {
      const ssize_t got = ::recv(connection_, bytes.data() + read, size - read, 0);
      if (got <= 0) break;
      read += static_cast<size_t>(got);
    }
    bytes.resize(read);
    return bytes;
  }

 private:
  const int fd_;
  int connection_ = -1;
  std::string endpoint_;
};

// By the first settings that it sends.
std::map<uint32_t, uint32_t> SettingsOf(Connection connection) {
  Listener listener;
  const std::shared_ptr<grpc::Channel> channel = MakeChannel(listener.endpoint(), connection);
  listener.Accept(*channel);
  EXPECT_EQ(listener.Read(kPrefaceBytes), kPreface);
  const std::string head = listener.Read(kFrameHeadBytes);
  std::map<uint32_t, uint32_t> settings;
  if (head.size() != kFrameHeadBytes) return settings;
  const std::string body = listener.Read(BigEndian(head, 0, 3));
  for (size_t at = 0; at + kSettingBytes <= body.size(); at += kSettingBytes) {
    settings[BigEndian(body, at, 2)] = BigEndian(body, at + 2, 4);
  }
  return settings;
}

// RFC 9113, 6.5.2: 65,535 unless it says another.
uint32_t WindowOf(Connection connection) {
  const std::map<uint32_t, uint32_t> settings = SettingsOf(connection);
  const auto window = settings.find(kInitialWindowSize);
  return window == settings.end() ? 65'535 : window->second;
}

TEST(Channel, ANearPeerSendsLittleAheadOfTheReader) { EXPECT_LE(WindowOf(Connection::kNear), 64 << 10); }

TEST(Channel, AnyOtherMaySendMegabytesAhead) {
  EXPECT_GE(WindowOf(Connection::kShared), 2 << 20);
  EXPECT_GE(WindowOf(Connection::kDedicated), 2 << 20);
}

}  // namespace
}  // namespace towline::client
