#include "client/write_stream.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "client/channel.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"

namespace towline::client {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;
using ::towline::testing::FakeServer;

v1::WriteRequest PutOf(const std::string& key, const std::string& value = "v") {
  v1::WriteRequest request;
  v1::Put* put = request.add_operations()->mutable_put();
  put->set_key(key);
  put->set_value(value);
  return request;
}

class WriteStreamTest : public ::testing::Test {
 protected:
  std::unique_ptr<WriteStream> Open(const WriteStreamOptions& options = {}) {
    return NewWriteStream(MakeChannel(server_.endpoint(), Connection::kDedicated), options,
                          [this](const WriteStreamAnswer& answer) { answers_.push_back(answer); });
  }

  FakeServer server_;
  std::vector<WriteStreamAnswer> answers_;  // read after Finish
};

TEST_F(WriteStreamTest, EveryElementIsAnsweredOnceAndInOrder) {
  auto stream = Open();
  for (int i = 1; i <= 1000; ++i) {
    const auto sequence = stream->Add(PutOf("key" + std::to_string(i)));
    ASSERT_TRUE(sequence.ok());
    EXPECT_EQ(*sequence, static_cast<uint64_t>(i));
  }
  ASSERT_TRUE(stream->Finish().ok());
  uint64_t next = 1;
  for (const WriteStreamAnswer& answer : answers_) {
    EXPECT_EQ(answer.first_sequence, next);
    EXPECT_GE(answer.last_sequence, answer.first_sequence);
    next = answer.last_sequence + 1;
  }
  EXPECT_EQ(next, 1001u);
  EXPECT_EQ(answers_.back().position->lsn(), 1000u);
  EXPECT_EQ(server_.Value("key1000"), "v");
}

TEST_F(WriteStreamTest, RefusedElementsAreReportedWithTheirSequence) {
  server_.state().refused_keys = {"b"};
  auto stream = Open();
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(stream->Add(PutOf(key)).ok());
  ASSERT_TRUE(stream->Finish().ok());
  std::vector<uint64_t> refused;
  for (const WriteStreamAnswer& answer : answers_) {
    for (const WriteStreamAnswer::Refusal& refusal : answer.refused) {
      refused.push_back(refusal.sequence);
      EXPECT_EQ(refusal.error.reason, "record_too_large");
    }
  }
  EXPECT_THAT(refused, ElementsAre(2));
  EXPECT_EQ(server_.Value("c"), "v");
}

TEST_F(WriteStreamTest, ElementsAreGatheredIntoMessages) {
  WriteStreamOptions options;
  options.message_elements = 100;
  auto stream = Open(options);
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(stream->Add(PutOf("k")).ok());
  ASSERT_TRUE(stream->Finish().ok());
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().stream_elements, 2000u);
  EXPECT_GE(server_.state().stream_messages, 20u);
  EXPECT_LT(server_.state().stream_messages, 2000u);
}

TEST_F(WriteStreamTest, AWindowSmallerThanAnElementStillMakesProgress) {
  WriteStreamOptions options;
  options.window_bytes = 10;
  options.message_bytes = 10;
  auto stream = Open(options);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(stream->Add(PutOf("k", std::string(100, 'x'))).ok());
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(WriteStreamTest, AFullWindowWaitsUntilAnswersCome) {
  {
    MutexLock lock(&server_.state().mutex);
    server_.state().hold_acks = true;
  }
  WriteStreamOptions options;
  options.window_bytes = 1000;
  auto stream = Open(options);
  std::atomic<int> added{0};
  std::thread adder([&] {
    for (int i = 0; i < 10; ++i) {
      if (!stream->Add(PutOf("k", std::string(400, 'x'))).ok()) break;
      ++added;
    }
  });
  // Nothing is answered, so the adder cannot get past the window; cancelling frees it.
  while (added.load() < 2) std::this_thread::yield();
  stream->Cancel();
  adder.join();
  EXPECT_EQ(added.load(), 2);
  EXPECT_EQ(stream->Finish().code(), absl::StatusCode::kCancelled);
}

TEST_F(WriteStreamTest, AfterACutConnectionTheAnsweredPartIsKnown) {
  server_.state().cut_stream_after = 5;
  auto stream = Open();
  absl::Status added;
  for (int i = 0; i < 10 && added.ok(); ++i) added = stream->Add(PutOf("k" + std::to_string(i))).status();
  const absl::Status end = stream->Finish();
  EXPECT_EQ(end.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetErrorInfo(end).reason, "stopped");
  ASSERT_FALSE(answers_.empty());
  EXPECT_EQ(answers_.back().last_sequence, 5u);
  EXPECT_EQ(stream->Add(PutOf("late")).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(WriteStreamTest, AnElementThatNoMessageCanCarryIsRefusedAndTheStreamGoesOn) {
  auto stream = Open();
  const auto large = stream->Add(PutOf("k", std::string(kStreamElementSizeMax, 'x')));
  EXPECT_EQ(GetErrorInfo(large.status()).reason, "record_too_large");
  EXPECT_EQ(*stream->Add(PutOf("k")), 1u);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(WriteStreamTest, NoServerIsUnavailable) {
  auto stream = NewWriteStream(MakeChannel("127.0.0.1:1", Connection::kDedicated), {}, nullptr);
  EXPECT_EQ(stream->Finish().code(), absl::StatusCode::kUnavailable);
}

TEST_F(WriteStreamTest, DestroyingAnOpenStreamCancelsIt) {
  auto stream = Open();
  ASSERT_TRUE(stream->Add(PutOf("k")).ok());
  stream.reset();
  EXPECT_THAT(answers_, SizeIs(::testing::Le(1)));
}

}  // namespace
}  // namespace towline::client
