#include "client/client.h"

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"

namespace towline::client {
namespace {

using ::testing::HasSubstr;
using ::towline::testing::FakeServer;

v1::WriteRequest PutOf(const std::string& key) {
  v1::WriteRequest request;
  request.add_operations()->mutable_put()->set_key(key);
  return request;
}

absl::Status NotPrimary(const std::string& address) {
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   ErrorInfo{"not_primary", "this is a replica", "", {{"primary_address", address}}});
}

TEST(Client, ABadEndpointIsRefusedBeforeAnythingElse) {
  EXPECT_EQ(GetErrorInfo(NewClient({"nonsense"}).status()).reason, "invalid_endpoint");
}

TEST(Client, AnUnreachableEndpointIsNamed) {
  auto client = NewClient({"127.0.0.1:1"});
  const absl::Status status = (*client)->GetStatus().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(GetErrorInfo(status).message, HasSubstr("127.0.0.1:1"));
}

TEST(Client, ErrorsOfTheServerKeepTheirInfo) {
  FakeServer server;
  auto client = NewClient({server.endpoint()});
  v1::GetSlotRequest request;
  request.set_name("none");
  EXPECT_EQ(GetErrorInfo((*client)->GetSlot(request).status()).reason, "slot_not_found");
}

TEST(Client, WritesFollowToThePrimaryOnlyIfAskedTo) {
  FakeServer primary;
  FakeServer replica;
  replica.state().refuse_writes = NotPrimary(primary.endpoint());

  auto staying = NewClient({replica.endpoint()});
  EXPECT_EQ(GetErrorInfo((*staying)->Write(PutOf("k")).status()).reason, "not_primary");

  auto following = NewClient({replica.endpoint(), 10'000'000, /*follow_primary=*/true});
  EXPECT_TRUE((*following)->Write(PutOf("k")).ok());
  EXPECT_EQ((*following)->endpoint(), primary.endpoint());
  EXPECT_EQ(primary.Value("k"), "");
}

TEST(Client, TwoNodesThatNameEachOtherAreNotFollowedForEver) {
  FakeServer a;
  FakeServer b;
  a.state().refuse_writes = NotPrimary(b.endpoint());
  b.state().refuse_writes = NotPrimary(a.endpoint());
  auto client = NewClient({a.endpoint(), 10'000'000, /*follow_primary=*/true});
  EXPECT_EQ(GetErrorInfo((*client)->Write(PutOf("k")).status()).reason, "not_primary");
}

}  // namespace
}  // namespace towline::client
