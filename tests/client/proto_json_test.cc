#include "client/proto_json.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/change.pb.h"
#include "towline/v1/kv_service.pb.h"
#include "towline/v1/slot_service.pb.h"

namespace towline {
namespace {

TEST(ProtoJson, EmptyMessageShowsEveryFieldThatIsNotInAOneof) {
  EXPECT_EQ(JsonText(ProtoToJson(v1::ResyncStatus())),
            R"({"partial_total":0,"full_total":0,"rewind_total":0,"refused_total":0,"by_reason":{},)"
            R"("consumers_by_reason":{},"invalidations":{},"superseded_sessions":0,"stalls":0})");
  EXPECT_EQ(JsonText(ProtoToJson(v1::Operation())), "{}");
}

TEST(ProtoJson, AbsentMessagesAndOptionalsAreNull) {
  const Json status = ProtoToJson(v1::GetStatusResponse());
  EXPECT_TRUE(status["upstream"].is_null());
  EXPECT_EQ(JsonText(status["replicas"]), "[]");
  EXPECT_TRUE(ProtoToJson(v1::ReplicaStatus())["lag_seconds"].is_null());
  v1::ReplicaStatus replica;
  replica.set_lag_seconds(0);
  EXPECT_EQ(JsonText(ProtoToJson(replica)["lag_seconds"]), "0.0");
}

TEST(ProtoJson, LargeNumbersStayNumbersAndIdsAreHex) {
  v1::Position position;
  position.set_lsn(UINT64_MAX);
  position.set_chain(0xabc);
  const Json json = ProtoToJson(position);
  EXPECT_EQ(json["lsn"].get<uint64_t>(), UINT64_MAX);
  EXPECT_EQ(json["chain"], "0000000000000abc");
  EXPECT_EQ(json["term_id"], "0000000000000000");
}

TEST(ProtoJson, EnumsLoseThePrefixAndUnknownOnesAreNumbers) {
  v1::Slot slot;
  slot.set_state(v1::SLOT_STATE_ACTIVE);
  slot.set_health(v1::SLOT_HEALTH_AT_RISK);
  Json json = ProtoToJson(slot);
  EXPECT_EQ(json["state"], "active");
  EXPECT_EQ(json["health"], "at_risk");
  EXPECT_EQ(json["kind"], "unspecified");
  slot.set_state(static_cast<v1::SlotState>(77));
  EXPECT_EQ(ProtoToJson(slot)["state"], 77);
}

TEST(ProtoJson, BytesAreTextIfTheyAreUtf8ElseBase64) {
  v1::Entry entry;
  entry.set_key("gr\xc3\xbc\xc3\x9f");
  entry.set_value(std::string("\xff\x00", 2));
  const Json json = ProtoToJson(entry);
  EXPECT_EQ(json["key"], "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(json["value_base64"], "/wA=");
  EXPECT_FALSE(json.contains("value"));
}

TEST(ProtoJson, RepeatedBytesAreBase64TogetherIfOneIsNotUtf8) {
  v1::BatchGetRequest request;
  request.add_keys("a");
  EXPECT_EQ(JsonText(ProtoToJson(request)), R"({"keys":["a"],"min_position":null,"wait_ms":0})");
  request.add_keys("\xff");
  EXPECT_EQ(JsonText(ProtoToJson(request)), R"({"keys_base64":["YQ==","/w=="],"min_position":null,"wait_ms":0})");
}

TEST(ProtoJson, MapsAreSortedObjects) {
  v1::ResyncStatus resync;
  (*resync.mutable_by_reason())["partial/resumed"] = 2;
  (*resync.mutable_by_reason())["full/wal_removed"] = 1;
  EXPECT_EQ(JsonText(ProtoToJson(resync)["by_reason"]), R"({"full/wal_removed":1,"partial/resumed":2})");
}

TEST(ProtoJson, OneofShowsTheMemberThatIsSet) {
  v1::Operation operation;
  operation.mutable_delete_()->set_key("k");
  EXPECT_EQ(JsonText(ProtoToJson(operation)), R"({"delete":{"key":"k"}})");
}

TEST(Utf8, OnlyShortestFormsOfUnicodeScalarsAreValid) {
  for (const std::string& text : {std::string(), std::string("a\0b", 3), std::string("\xc2\x80"),
                                  std::string("\xe0\xa0\x80"), std::string("\xed\x9f\xbf"), std::string("\xef\xbf\xbf"),
                                  std::string("\xf0\x90\x80\x80"), std::string("\xf4\x8f\xbf\xbf")}) {
    EXPECT_TRUE(IsValidUtf8(text));
  }
  for (const std::string& text :
       {std::string("\x80"), std::string("\xc0\x80"), std::string("\xc1\xbf"), std::string("\xc2"),
        std::string("\xe0\x9f\xbf"), std::string("\xed\xa0\x80"), std::string("\xe2\x82"),
        std::string("\xf0\x8f\xbf\xbf"), std::string("\xf4\x90\x80\x80"), std::string("\xf5\x80\x80\x80"),
        std::string("\xf0\x90\x80"), std::string("\xe2\x28\xa1")}) {
    EXPECT_FALSE(IsValidUtf8(text)) << testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace towline
