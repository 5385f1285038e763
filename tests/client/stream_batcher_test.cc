#include "client/stream_batcher.h"

#include <string>
#include <vector>

#include "common/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/ctl/fake_server.h"
#include "tests/support/status_matchers.h"
#include "towline/client.h"
#include "towline/client_error.h"

namespace towline {
namespace {

using std::chrono::milliseconds;
using test::IsOk;
using test::ReasonIs;
using ::testing::SizeIs;
using ::towline::testing::FakeServer;

class StreamBatcherTest : public ::testing::Test {
 protected:
  StreamBatcherTest() { Connect({server_.endpoint()}); }

  void Connect(std::vector<std::string> endpoints) {
    ClientOptions options;
    options.endpoints = std::move(endpoints);
    options.backoff_min = options.backoff_max = milliseconds(1);
    client_ = *Client::Make(options);
  }

  std::unique_ptr<WriteBatcher> Open(const BatcherOptions& options = {}) {
    return client_->NewBatcher(options, [this](const RecordAnswer& answer) {
      MutexLock lock(&mutex_);
      answers_.push_back(answer);
    });
  }

  static WriteSet PutOf(const std::string& key) {
    WriteSet writes;
    writes.Put(key, "v");
    return writes;
  }

  void AddKeys(WriteBatcher& batcher, int count) {
    for (int i = 0; i < count; ++i) ASSERT_THAT(batcher.Add(PutOf("key" + std::to_string(i))), IsOk());
  }

  // One answer for each number, in order.
  void ExpectAnswers(uint64_t count) {
    MutexLock lock(&mutex_);
    ASSERT_EQ(answers_.size(), count);
    for (uint64_t i = 0; i < count; ++i) EXPECT_EQ(answers_[i].number, i + 1);
  }

  uint64_t Records(FakeServer& server) {
    MutexLock lock(&server.state().mutex);
    return server.state().log.size();
  }

  FakeServer server_;
  std::unique_ptr<Client> client_;
  Mutex mutex_;
  std::vector<RecordAnswer> answers_ TOWLINE_GUARDED_BY(mutex_);
};

TEST_F(StreamBatcherTest, EveryRecordIsAnsweredOnceAndInOrder) {
  auto batcher = Open();
  AddKeys(*batcher, 1000);
  ASSERT_THAT(batcher->Flush(), IsOk());
  ExpectAnswers(1000);
  EXPECT_EQ(batcher->position().lsn, 1000u);
  EXPECT_EQ(client_->session().lsn, 1000u);
  AddKeys(*batcher, 10);
  ASSERT_THAT(batcher->Close(), IsOk());
  ExpectAnswers(1010);
  EXPECT_EQ(Records(server_), 1010u);
  EXPECT_THAT(batcher->Add(PutOf("late")), ReasonIs("batcher_closed"));
}

TEST_F(StreamBatcherTest, AnEmptyBatcherClosesAtOnce) {
  auto batcher = Open();
  EXPECT_THAT(batcher->Flush(), IsOk());
  EXPECT_THAT(batcher->Close(), IsOk());
  EXPECT_EQ(server_.state().streams, 0u);
}

TEST_F(StreamBatcherTest, AStreamThatDiesInTheMiddleLosesAndRepeatsNothing) {
  server_.state().cut_stream_after = 300;
  BatcherOptions options;
  options.batch_records = 50;
  auto batcher = Open(options);
  AddKeys(*batcher, 1000);
  ASSERT_THAT(batcher->Close(), IsOk());
  ExpectAnswers(1000);
  for (const RecordAnswer& answer : answers_) EXPECT_THAT(answer.status, IsOk());
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().log.size(), 1000u);
  EXPECT_GE(server_.state().streams, 2u);
}

TEST_F(StreamBatcherTest, AnIdleStreamThatEndsIsOpenedAgain) {
  auto batcher = Open();
  AddKeys(*batcher, 3);
  ASSERT_THAT(batcher->Flush(), IsOk());
  {
    MutexLock lock(&server_.state().mutex);
    server_.state().cut_stream_after = 3;  // at the next element
  }
  AddKeys(*batcher, 3);
  ASSERT_THAT(batcher->Flush(), IsOk());
  ExpectAnswers(6);
  EXPECT_EQ(Records(server_), 6u);
}

TEST_F(StreamBatcherTest, RefusedRecordsAreAnsweredAndTheOthersWritten) {
  server_.state().refused_keys = {"key1"};
  auto batcher = Open();
  AddKeys(*batcher, 3);
  ASSERT_THAT(batcher->Close(), IsOk());
  ExpectAnswers(3);
  EXPECT_THAT(answers_[0].status, IsOk());
  EXPECT_THAT(answers_[1].status, ReasonIs("record_too_large"));
  EXPECT_EQ(FateOf(answers_[1].status), WriteFate::kNotLogged);
  EXPECT_THAT(answers_[2].status, IsOk());
}

TEST_F(StreamBatcherTest, ARefusalForAMomentIsRepeatedWithWhatIsBehindIt) {
  server_.state().busy_key = "key5";
  auto batcher = Open();
  AddKeys(*batcher, 10);
  ASSERT_THAT(batcher->Close(), IsOk());
  ExpectAnswers(10);
  for (const RecordAnswer& answer : answers_) EXPECT_THAT(answer.status, IsOk());
  EXPECT_EQ(Records(server_), 10u);
}

TEST_F(StreamBatcherTest, GoesToThePrimary) {
  FakeServer replica;
  replica.state().refuse_writes =
      MakeError(absl::StatusCode::kFailedPrecondition,
                ErrorInfo{"not_primary", "a replica", "", {{"primary_address", server_.endpoint()}}});
  {
    MutexLock lock(&replica.state().mutex);
    replica.state().topology.set_term(1);
    replica.state().topology.set_primary_address(replica.endpoint());  // it is wrong
  }
  Connect({replica.endpoint()});
  auto batcher = Open();
  AddKeys(*batcher, 5);
  ASSERT_THAT(batcher->Close(), IsOk());
  EXPECT_EQ(Records(server_), 5u);
}

TEST_F(StreamBatcherTest, GivesUpWhenNothingHelps) {
  Connect({"127.0.0.1:1"});
  BatcherOptions options;
  options.retry_for = milliseconds(20);
  auto batcher = Open(options);
  ASSERT_THAT(batcher->Add(PutOf("k")), IsOk());
  EXPECT_FALSE(batcher->Flush().ok());
  ExpectAnswers(1);
  EXPECT_EQ(FateOf(answers_[0].status), WriteFate::kNotLogged);
  EXPECT_FALSE(batcher->Add(PutOf("k")).ok());
  EXPECT_FALSE(batcher->Close().ok());
}

TEST_F(StreamBatcherTest, AnErrorThatNoOtherNodeMendsEndsIt) {
  server_.state().refuse_writes = absl::PermissionDeniedError("no");
  auto batcher = Open();
  ASSERT_THAT(batcher->Add(PutOf("k")), IsOk());
  EXPECT_TRUE(absl::IsPermissionDenied(batcher->Flush()));
}

TEST_F(StreamBatcherTest, DestroyingItAnswersTheRest) {
  {
    MutexLock lock(&server_.state().mutex);
    server_.state().hold_acks = true;
  }
  auto batcher = Open();
  AddKeys(*batcher, 5);
  batcher.reset();
  ExpectAnswers(5);
  for (const RecordAnswer& answer : answers_) EXPECT_TRUE(absl::IsCancelled(answer.status)) << answer.status;
}

TEST_F(StreamBatcherTest, AFullWindowWaitsAndAWindowSmallerThanARecordStillMakesProgress) {
  BatcherOptions options;
  options.window_bytes = 10;
  auto batcher = Open(options);
  AddKeys(*batcher, 50);
  ASSERT_THAT(batcher->Close(), IsOk());
  ExpectAnswers(50);
}

TEST_F(StreamBatcherTest, TheLevelTravelsOncePerMessage) {
  BatcherOptions options;
  options.durability = WriteDurability{1, false, milliseconds(0), false};
  auto batcher = Open(options);
  WriteSet writes = PutOf("k");
  writes.Durability({3, false, milliseconds(0), false});
  ASSERT_THAT(batcher->Add(std::move(writes)), IsOk());
  ASSERT_THAT(batcher->Close(), IsOk());
  MutexLock lock(&server_.state().mutex);
  EXPECT_EQ(server_.state().stream_durability, server_.state().stream_messages);
}

TEST_F(StreamBatcherTest, ARecordThatNoMessageCanCarryIsRefusedAtOnce) {
  auto batcher = Open();
  WriteSet writes;
  writes.Put("k", std::string(9u << 20, 'x'));
  EXPECT_THAT(batcher->Add(std::move(writes)), ReasonIs("record_too_large"));
  ASSERT_THAT(batcher->Add(PutOf("k")), IsOk());
  EXPECT_THAT(batcher->Close(), IsOk());
  ExpectAnswers(1);
}

}  // namespace
}  // namespace towline
