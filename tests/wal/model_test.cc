// The spool against a vector: random histories of appends, prunes, reopens, crashes and reads.
//
// Method   The model is the list of records and the answers follow from it by counting. A seed decides everything; it
// is
//          printed when a test fails.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"
#include "wal/inspect.h"

namespace towline::wal::test {
namespace {

using ::testing::IsEmpty;
using ::towline::test::CrashProfile;
using ::towline::test::IsOk;
using ::towline::test::IsOkAndHolds;
using ::towline::test::ReasonIs;

#ifdef TOWLINE_SANITIZED
constexpr int kSeeds = 6;
#else
constexpr int kSeeds = 200;
#endif
constexpr int kSteps = 150;

struct ModelRecord {
  std::string payload;
  Term term = 0;
  int64_t commit_time_us = 0;
  LogEnd end;  // behind it
};

class ModelRun {
 public:
  explicit ModelRun(uint64_t seed) : node_(fs_, seed), rng_(seed) {
    options_ = SmallOptions();
    options_.spare_segments = static_cast<int>(rng_.Below(3));
    options_.index_interval_bytes = 1 + rng_.Below(8000);
    options_.tail_cache_bytes = rng_.OneIn(3) ? 0 : rng_.Below(200000);
    options_.index_cache_bytes = rng_.Below(4000);
  }

  void Run() {
    ASSERT_THAT(Open(), IsOk());
    for (int step = 0; step < kSteps; ++step) {
      SCOPED_TRACE(absl::StrCat("step ", step));
      Step();
      if (::testing::Test::HasFatalFailure() || ::testing::Test::HasNonfatalFailure()) return;
    }
    TOWLINE_ASSERT_OK_AND_ASSIGN(const VerifyReport report, VerifySpool(fs_, kDirectory));
    EXPECT_THAT(report.damages, IsEmpty()) << report.damages[0].what;
    EXPECT_EQ(report.last_lsn, report.records == 0 ? 0 : records_.size());
  }

 private:
  struct Reader {
    std::unique_ptr<Cursor> cursor;
    Lsn next = 0;
  };

  void Step() {
    const uint64_t kind = rng_.Below(100);
    if (kind < 43) return Append();
    if (kind < 45) return AppendWithFailure();
    if (kind < 50) return Prune();
    if (kind < 53) return Restart();
    if (kind < 57) return Crash();
    if (kind < 60) return static_cast<void>(node_.executor.AdvanceTime(1000000));
    if (kind < 68) return NewReader();
    if (kind < 85) return Read();
    return Ask();
  }

  absl::Status Open() {
    readers_.clear();
    RecoveryInputs inputs = Inputs(rng_.OneIn(2) ? records_.size() : 0);
    inputs.first_retained = saved_first_;
    const absl::Status opened = node_.Open(options_, inputs);
    if (opened.ok()) first_ = node_.spool->stats().first_lsn;
    return opened;
  }

  // A group behind the end, and what the model makes of it.
  std::shared_ptr<FrameGroup> MakeRecords(std::vector<ModelRecord>* added) {
    GroupBuilder builder(node_.spool->end());
    for (uint64_t count = 1 + rng_.Below(5); count > 0; --count) {
      const LogEnd before = builder.end();
      ModelRecord record;
      const uint64_t size = rng_.OneIn(40) ? 60000 + rng_.Below(50000) : rng_.Below(rng_.OneIn(4) ? 12000 : 600);
      record.payload = PayloadOf(rng_.Next(), size);
      record.term = std::max<Term>(before.term, 1) + (rng_.OneIn(20) ? 1 : 0);
      now_ += static_cast<int64_t>(rng_.Below(2000)) - 500;
      builder.Add(RecordType::kBatch, record.term, now_, record.payload, Crc32c(record.payload));
      record.commit_time_us = std::max(now_, before.commit_time_us);
      record.end = builder.end();
      added->push_back(std::move(record));
    }
    return builder.Finish();
  }

  void Append() {
    std::vector<ModelRecord> added;
    ASSERT_THAT(node_.spool->Append(MakeRecords(&added)), IsOk());
    for (ModelRecord& record : added) records_.push_back(std::move(record));
  }

  // One of the next calls fails. What became of the group is not known: after the restart any prefix of it may be
  // there, and nothing else.
  void AppendWithFailure() {
    std::vector<ModelRecord> added;
    const std::shared_ptr<FrameGroup> group = MakeRecords(&added);
    fs_.SetFailedSyncPersists(rng_.OneIn(2));
    fs_.FailCall(fs_.calls() + 1 + static_cast<int64_t>(rng_.Below(4)),
                 MakeError(absl::StatusCode::kDataLoss, "io_error", "injected"));
    const absl::Status appended = node_.spool->Append(group);
    fs_.ClearFailures();
    if (appended.ok()) {
      for (ModelRecord& record : added) records_.push_back(std::move(record));
      return;
    }
    ASSERT_THAT(appended, ReasonIs("wal_poisoned"));
    ASSERT_EQ(node_.spool->end().lsn, records_.size());
    node_.Close();
    readers_.clear();
    if (rng_.OneIn(2)) fs_.Crash(rng_.OneIn(2) ? CrashProfile::kStrict : CrashProfile::kAdversary, rng_);
    ASSERT_THAT(Open(), IsOk());
    const Lsn end = node_.spool->end().lsn;
    ASSERT_GE(end, records_.size());
    ASSERT_LE(end, records_.size() + added.size());
    for (size_t i = 0; records_.size() < end; ++i) records_.push_back(std::move(added[i]));
  }

  void Prune() {
    const Lsn needed = 1 + rng_.Below(records_.size() + 1);
    const uint64_t keep = rng_.OneIn(2) ? 0 : rng_.Below(200000);
    const absl::StatusOr<Lsn> first = node_.spool->Prune(needed, keep, [&](Lsn lsn) {
      EXPECT_GT(lsn, first_);
      EXPECT_LE(lsn, needed);
      EXPECT_GE(BytesFrom(lsn), keep);
      saved_first_ = lsn;
      return absl::OkStatus();
    });
    ASSERT_THAT(first, IsOk());
    ASSERT_GE(*first, first_);
    first_ = *first;
  }

  void Restart() { ASSERT_THAT(Open(), IsOk()); }

  void Crash() {
    node_.Close();
    readers_.clear();
    fs_.Crash(rng_.OneIn(2) ? CrashProfile::kStrict : CrashProfile::kAdversary, rng_);
    ASSERT_THAT(Open(), IsOk());
    ASSERT_EQ(node_.spool->end().lsn, records_.size());
  }

  void NewReader() {
    const Lsn from = 1 + rng_.Below(records_.size() + 1);
    absl::StatusOr<std::unique_ptr<Cursor>> cursor = node_.spool->NewCursor(from);
    if (from < first_) {
      ASSERT_THAT(cursor, ReasonIs("wal_removed"));
      return;
    }
    ASSERT_THAT(cursor, IsOk());
    readers_.push_back({*std::move(cursor), from});
    if (readers_.size() > 5) readers_.erase(readers_.begin());
  }

  void Read() {
    if (readers_.empty()) return;
    const size_t index = rng_.Below(readers_.size());
    Reader& reader = readers_[index];
    ASSERT_EQ(reader.cursor->next_lsn(), reader.next);
    const size_t max_bytes = rng_.Below(rng_.OneIn(2) ? 100 : 100000);
    const absl::StatusOr<ShippedBatch> batch = reader.cursor->Next(max_bytes);
    if (!batch.ok()) {
      EXPECT_THAT(batch, ReasonIs("wal_removed"));
      EXPECT_LT(reader.next, first_);
      readers_.erase(readers_.begin() + static_cast<ptrdiff_t>(index));
      return;
    }
    ASSERT_EQ(batch->before, EndBehind(reader.next - 1));
    ASSERT_EQ(batch->empty(), reader.next == records_.size() + 1);
    ASSERT_THAT(ForEachShipped(batch->bytes,
                               [&](const ShippedFrame& frame) {
                                 EXPECT_EQ(frame.header.lsn, reader.next);
                                 const ModelRecord& expected = records_[reader.next - 1];
                                 EXPECT_EQ(frame.payload, expected.payload);
                                 EXPECT_EQ(frame.header.term, expected.term);
                                 EXPECT_EQ(frame.header.commit_time_us, expected.commit_time_us);
                                 ++reader.next;
                                 return absl::OkStatus();
                               }),
                IsOk());
    ASSERT_EQ(batch->after, EndBehind(reader.next - 1));
  }

  void Ask() {
    Spool& spool = *node_.spool;
    ASSERT_EQ(spool.end(), EndBehind(records_.size()));
    const Lsn lsn = rng_.Below(records_.size() + 1);
    if (lsn + 1 >= first_ || lsn == 0) {
      ASSERT_THAT(spool.EndAt(lsn), IsOkAndHolds(EndBehind(lsn)));
    } else {
      ASSERT_THAT(spool.EndAt(lsn), ReasonIs("wal_removed"));
    }
    const uint64_t exact = BytesFrom(std::max(lsn + 1, first_));
    ASSERT_GE(spool.BytesBehind(lsn), exact);
    ASSERT_LE(spool.BytesBehind(lsn), exact + options_.index_interval_bytes);

    const int64_t time = static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(std::max<int64_t>(now_, 1)) + 1000));
    Lsn newer = first_;
    while (newer <= records_.size() && records_[newer - 1].commit_time_us < time) ++newer;
    ASSERT_THAT(spool.SeekTime(time), IsOkAndHolds(newer));
  }

  LogEnd EndBehind(Lsn lsn) const { return lsn == 0 ? LogEnd() : records_[lsn - 1].end; }

  // Bytes that the records from `lsn` on take as frames.
  uint64_t BytesFrom(Lsn lsn) const {
    uint64_t bytes = 0;
    for (Lsn at = lsn; at <= records_.size(); ++at) bytes += (56 + records_[at - 1].payload.size() + 7) / 8 * 8;
    return bytes;
  }

  SimFileSystem fs_;
  Node node_;
  SeededRng rng_;
  SpoolOptions options_;
  std::vector<ModelRecord> records_;
  std::vector<Reader> readers_;
  Lsn first_ = 1;
  Lsn saved_first_ = 0;
  int64_t now_ = 1000;
};

TEST(ModelTest, RandomHistoriesGiveTheModelsAnswers) {
  for (int seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    ModelRun(static_cast<uint64_t>(seed)).Run();
    if (::testing::Test::HasFatalFailure() || ::testing::Test::HasNonfatalFailure()) return;
  }
}

}  // namespace
}  // namespace towline::wal::test
