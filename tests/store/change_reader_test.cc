// Tests of the in-place reader of records against protobuf.

#include "store/change_reader.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "tests/store/state_test_util.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::HasSubstr;
using Kind = ChangeOperation::Kind;

absl::Status Read(const std::string& payload, ChangeHead* head, std::vector<ChangeOperation>* operations) {
  operations->clear();
  return ReadChange(payload, 7, head, operations);
}

absl::Status Read(const std::string& payload) {
  ChangeHead head;
  std::vector<ChangeOperation> operations;
  return Read(payload, &head, &operations);
}

// What was read must be what protobuf reads.
void ExpectSame(const std::string& payload, const ChangeHead& head, const std::vector<ChangeOperation>& operations) {
  v1::Change change;
  ASSERT_TRUE(change.ParseFromString(payload));
  ASSERT_EQ(static_cast<int>(head.kind), static_cast<int>(change.kind_case()));
  ASSERT_EQ(head.client_id, change.batch().request_id().client_id());
  ASSERT_EQ(head.sequence, change.batch().request_id().sequence());
  ASSERT_EQ(operations.size(), static_cast<size_t>(change.batch().operations_size()));
  for (int i = 0; i < change.batch().operations_size(); ++i) {
    const v1::Operation& expected = change.batch().operations(i);
    const ChangeOperation& read = operations[static_cast<size_t>(i)];
    ASSERT_EQ(read.lsn, 7u);
    ASSERT_EQ(static_cast<int>(read.kind), static_cast<int>(expected.kind_case()));
    switch (read.kind) {
      case Kind::kPut:
        ASSERT_EQ(read.key, expected.put().key());
        ASSERT_EQ(read.value, expected.put().value());
        ASSERT_EQ(read.expire_at_ms, expected.put().expire_at_ms());
        break;
      case Kind::kDelete:
        ASSERT_EQ(read.key, expected.delete_().key());
        break;
      case Kind::kDeleteRange:
        ASSERT_EQ(read.key, expected.delete_range().begin());
        ASSERT_EQ(read.value, expected.delete_range().end());
        break;
      case Kind::kMessage:
        ASSERT_EQ(read.key, expected.message().topic());
        ASSERT_EQ(read.value, expected.message().payload());
        break;
    }
  }
}

TEST(ChangeReader, ReadsWhatProtobufWrites) {
  SeededRng rng(1);
  ChangeHead head;
  std::vector<ChangeOperation> operations;
  for (Lsn lsn = 1; lsn < 3000; ++lsn) {
    const std::string payload = RandomChange(rng, lsn);
    ASSERT_THAT(Read(payload, &head, &operations), IsOk());
    ExpectSame(payload, head, operations);
  }
  ASSERT_THAT(Read(TermStartPayload(), &head, &operations), IsOk());
  EXPECT_EQ(head.kind, ChangeKind::kTermStart);
}

// Damaged bytes: what is accepted is what protobuf makes of it, so that no two readers of a log can differ.
TEST(ChangeReader, AcceptsNothingThatProtobufReadsOtherwise) {
  SeededRng rng(2);
  ChangeHead head;
  std::vector<ChangeOperation> operations;
  int accepted = 0;
  for (int i = 0; i < 60000; ++i) {
    std::string payload = RandomChange(rng, 5);
    for (uint64_t n = 1 + rng.Below(3); n > 0; --n) {
      const size_t at = rng.Below(payload.size());
      if (rng.OneIn(4)) payload.insert(at, 1, static_cast<char>(rng.Below(256)));
      if (rng.OneIn(4) && payload.size() > 1) payload.erase(at, 1);
      if (rng.OneIn(2) && at < payload.size()) payload[at] = static_cast<char>(rng.Below(256));
    }
    if (!Read(payload, &head, &operations).ok()) continue;
    if (head.kind != ChangeKind::kBatch) continue;  // of the others only the kind is read
    ++accepted;
    ExpectSame(payload, head, operations);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(accepted, 1000);
}

TEST(ChangeReader, EveryTruncationOfANestedFieldIsRefused) {
  const std::string payload = ChangeBuilder().Put("key", "value", 300).Request("c", 1).Encode();
  for (size_t size = 0; size < payload.size(); ++size) {
    EXPECT_THAT(Read(payload.substr(0, size)), ReasonIs("record_malformed")) << size;
  }
}

TEST(ChangeReader, SkipsFieldsOfALaterVersion) {
  std::string payload = ChangeBuilder().Put("key", "value").Encode();
  payload += std::string("\xa0\x06\x01", 3);    // field 100, number
  payload += std::string("\xa2\x06\x02xy", 5);  // field 100, bytes
  payload += std::string(
      "\xa5\x06"
      "1234",
      6);  // field 100, fixed32
  payload += std::string(
      "\xa1\x06"
      "12345678",
      10);  // field 100, fixed64
  ChangeHead head;
  std::vector<ChangeOperation> operations;
  ASSERT_THAT(Read(payload, &head, &operations), IsOk());
  ExpectSame(payload, head, operations);
  EXPECT_THAT(Read(payload + std::string("\xa3\x06\xa4\x06", 4)), ReasonIs("record_malformed")) << "a group";
}

TEST(ChangeReader, RefusesWhatTheLogNeverHolds) {
  EXPECT_THAT(Read(""), ReasonIs("record_malformed"));
  v1::Change change;
  change.mutable_batch()->add_operations();
  EXPECT_THAT(Read(change.SerializeAsString()), ReasonIs("record_malformed")) << "an operation without a kind";

  change.Clear();
  v1::Put& put = *change.mutable_batch()->add_operations()->mutable_put();
  put.set_key("k");
  put.set_ttl_ms(5);
  EXPECT_THAT(Read(change.SerializeAsString()), ReasonIs("record_malformed")) << "a relative expiry";

  EXPECT_THAT(Read(ChangeBuilder().Put("", "v").Encode()), ReasonIs("record_malformed"));
  EXPECT_THAT(Read(ChangeBuilder().Delete("").Encode()), ReasonIs("record_malformed"));
  EXPECT_THAT(Read(ChangeBuilder().Put(std::string(65536, 'k'), "v").Encode()), IsOk());
  EXPECT_THAT(Read(ChangeBuilder().Put(std::string(65537, 'k'), "v").Encode()), ReasonIs("record_malformed"));
  EXPECT_THAT(Read(ChangeBuilder().DeleteRange("", std::string(65537, 'k')).Encode()), ReasonIs("record_malformed"));
  EXPECT_THAT(Read(ChangeBuilder().Put("k", "v").Request("Bad Name", 1).Encode()), ReasonIs("record_malformed"));
  EXPECT_THAT(Read(ChangeBuilder().Put("k", "v").Request("c", 0).Encode()), ReasonIs("record_malformed"));

  const std::string batch = ChangeBuilder().Put("k", "v").Encode();
  EXPECT_THAT(Read(batch + batch), ReasonIs("record_malformed")) << "two kinds";
  const absl::Status status = Read(batch + MembersPayload());
  EXPECT_THAT(status.message(), HasSubstr("record 7"));
}

}  // namespace
}  // namespace towline::test
