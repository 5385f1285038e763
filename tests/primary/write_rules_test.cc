#include "primary/write_rules.h"

#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "primary/write_intake.h"
#include "store/memory_store.h"
#include "tests/support/status_matchers.h"
#include "towline/v1/kv_service.pb.h"

namespace towline {
namespace {

using test::IsOk;
using test::ReasonIs;

// Rules over a state that stays empty, so that only records in flight are seen.
class WriteRulesTest : public ::testing::Test {
 protected:
  void Assign(Lsn lsn, const std::string& key) {
    v1::WriteRequest request;
    request.add_operations()->mutable_put()->set_key(key);
    request.mutable_request_id()->set_client_id("c");
    request.mutable_request_id()->set_sequence(lsn);
    WriteRecord record;
    ASSERT_THAT(BuildWriteRecord(request, 1000, kRecordSizeMaxDefault, &record), IsOk());
    ASSERT_THAT(rules_.Admit(record, 1000).status, IsOk());
    record.lsn = lsn;
    rules_.Assigned(&record);
    EXPECT_TRUE(record.payload.empty());
  }  // the record and the request are gone here

  bool Exists(const std::string& key) {
    WriteRecord record;
    record.conditions.push_back({key, true, 0});
    return rules_.Admit(record, 1000).status.ok();
  }

  MemoryStoreFactory stores_;
  std::unique_ptr<StateStore> state_ = *StateStore::Open(*stores_.Open("db"));
  WriteRules rules_{*state_};
};

TEST_F(WriteRulesTest, WhatIsAssignedCountsUntilItIsApplied) {
  Assign(1, "a key of more than fifteen bytes");
  Assign(2, "b");
  EXPECT_TRUE(Exists("a key of more than fifteen bytes"));
  EXPECT_TRUE(Exists("b"));
  rules_.Applied(1);
  EXPECT_FALSE(Exists("a key of more than fifteen bytes")) << "the state tells from now on";
  EXPECT_TRUE(Exists("b"));
  rules_.Applied(2);
  EXPECT_FALSE(Exists("b"));
}

TEST_F(WriteRulesTest, WhatWasNotWrittenLeavesNoTrace) {
  Assign(1, "a");
  Assign(2, "b");
  EXPECT_TRUE(Exists("b"));
  rules_.Discard(1);
  EXPECT_TRUE(Exists("a"));
  EXPECT_FALSE(Exists("b"));
}

TEST_F(WriteRulesTest, ARequestInFlightIsADuplicate) {
  Assign(1, "a");
  WriteRecord again;
  again.request = RequestKey{"c", 1};
  const WriteOutcome outcome = rules_.Admit(again, 1000);
  EXPECT_THAT(outcome.status, IsOk());
  EXPECT_TRUE(outcome.duplicate);
  EXPECT_EQ(outcome.position.lsn, 1u);
}

TEST_F(WriteRulesTest, AnExpiryIsForAKeyThatHasExpired) {
  Assign(1, "a");
  WriteRecord expiry;
  BuildDeleteRecord("a", &expiry);
  expiry.expired_key = "a";
  EXPECT_THAT(rules_.Admit(expiry, 1000).status, ReasonIs("not_expired"));
}

}  // namespace
}  // namespace towline
