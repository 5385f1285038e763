#include "ctl/bench_requests.h"

#include <set>

#include "gtest/gtest.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::ctl {
namespace {

TEST(BenchRequests, PatchedTemplatesParseBackWithTheChosenKeys) {
  for (const size_t value_size : {0u, 1u, 100u, 256u, 20'000u}) {
    RequestTemplate stream = StreamTemplate(value_size, 3);
    ASSERT_EQ(stream.digits.size(), 3u);
    for (size_t i = 0; i < 3; ++i) PutDigits(stream.bytes.data() + stream.digits[i], 123456 + i);
    v1::WriteStreamRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(SequenceField(300) + stream.bytes));
    EXPECT_EQ(parsed.first_sequence(), 300u);
    ASSERT_EQ(parsed.elements_size(), 3);
    for (int i = 0; i < 3; ++i) {
      const v1::Put& put = parsed.elements(i).operations(0).put();
      EXPECT_EQ(put.key(), BenchKey(123456 + static_cast<uint64_t>(i)));
      EXPECT_EQ(put.value().size(), value_size);
    }
    RequestTemplate write = WriteTemplate(value_size);
    PutDigits(write.bytes.data() + write.digits.at(0), 999'999'999'999);
    v1::WriteRequest request;
    ASSERT_TRUE(request.ParseFromString(write.bytes));
    EXPECT_EQ(request.operations(0).put().key(), "bench-999999999999");
  }
}

TEST(BenchRequests, SequencesOfEverySizeEncode) {
  for (const uint64_t sequence : {uint64_t{1}, uint64_t{127}, uint64_t{128}, uint64_t{1} << 40, UINT64_MAX}) {
    v1::WriteStreamRequest parsed;
    ASSERT_TRUE(parsed.ParseFromString(SequenceField(sequence)));
    EXPECT_EQ(parsed.first_sequence(), sequence);
  }
}

TEST(KeyChoice, StaysInTheKeySpaceAndReachesAllOfIt) {
  KeyChoice keys(42, 10);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(keys.Next());
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_LT(*seen.rbegin(), 10u);
}

}  // namespace
}  // namespace towline::ctl
