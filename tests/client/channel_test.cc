#include "client/channel.h"

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

}  // namespace
}  // namespace towline::client
