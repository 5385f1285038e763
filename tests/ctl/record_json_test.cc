#include "ctl/record_json.h"

#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

v1::Change Batch() {
  v1::Change change;
  v1::Batch* batch = change.mutable_batch();
  batch->add_operations()->mutable_put()->set_key("user/1");
  batch->add_operations()->mutable_put()->set_key("order/1");
  batch->add_operations()->mutable_delete_()->set_key("user/2");
  v1::DeleteRange* range = batch->add_operations()->mutable_delete_range();
  range->set_begin("a");
  range->set_end("user/5");
  batch->add_operations()->mutable_message()->set_topic("user/");
  return change;
}

TEST(RecordJson, BatchHasOperationsAndRequestId) {
  v1::Change change;
  change.mutable_batch()->add_operations()->mutable_delete_()->set_key("k");
  EXPECT_EQ(JsonText(RecordJson(5, 2, 1000, 0xab, change)),
            R"({"lsn":5,"term":2,"commit_time_us":1000,"chain":"00000000000000ab","type":"batch",)"
            R"("operations":[{"delete":{"key":"k"}}],"request_id":null})");
}

TEST(RecordJson, ControlRecordsNameTheirType) {
  v1::Change change;
  change.mutable_term_start()->set_term(3);
  EXPECT_EQ(RecordJson(1, 3, 0, 0, change)["term_start"]["term"], 3);
  change.mutable_members()->set_min_replicas(1);
  const Json members = RecordJson(2, 3, 0, 0, change);
  EXPECT_EQ(members["type"], "members");
  EXPECT_EQ(members["min_replicas"], 1);
}

TEST(KeepPrefix, KeepsWhatTouchesThePrefixInOrder) {
  v1::Change change = Batch();
  ASSERT_TRUE(KeepPrefix("user/", &change));
  ASSERT_EQ(change.batch().operations_size(), 3);
  EXPECT_EQ(change.batch().operations(0).put().key(), "user/1");
  EXPECT_EQ(change.batch().operations(1).delete_().key(), "user/2");
  EXPECT_TRUE(change.batch().operations(2).has_delete_range());
}

TEST(KeepPrefix, NothingIsLeftOfOtherRecords) {
  v1::Change change = Batch();
  EXPECT_FALSE(KeepPrefix("zebra", &change));
  v1::Change control;
  control.mutable_term_start();
  EXPECT_FALSE(KeepPrefix("a", &control));
}

}  // namespace
}  // namespace towline::ctl
