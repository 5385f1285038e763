// Snapshot streams and loads that are broken off and go on, run against each engine.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "store/snapshot_codec.h"
#include "tests/store/state_test_util.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

using SnapshotPtr = std::shared_ptr<const StateSnapshot>;

// Like RandomLog, with many more puts than deletions, so that a state has many chunks.
TestLog DenseLog(uint64_t seed, Lsn records) {
  SeededRng rng(seed);
  TestLog log;
  log.Append(TermStartPayload());
  while (log.last() < records) {
    const Lsn lsn = log.last() + 1;
    if (rng.OneIn(12)) {
      log.Append(RandomChange(rng, lsn));
      continue;
    }
    ChangeBuilder change;
    for (uint64_t i = 1 + rng.Below(3); i > 0; --i) {
      const std::string key = absl::StrCat(rng.OneIn(2) ? "a" : "key:", rng.Below(300));
      change.Put(key, std::string(rng.Below(60), 'v'), rng.OneIn(3) ? 1000 + rng.Below(500) : 0);
    }
    if (rng.OneIn(2)) change.Request(absl::StrCat("client-", rng.Below(5)), lsn);
    log.Append(change.Encode());
  }
  return log;
}

class ResumeTest : public ::testing::Test {
 protected:
  std::unique_ptr<StateStore> Open(const std::string& name) {
    auto store = factory_->Open(dir_.Join(name));
    EXPECT_THAT(store, IsOk());
    auto state = StateStore::Open(*std::move(store));
    EXPECT_THAT(state, IsOk());
    return *std::move(state);
  }

  static SnapshotPtr Take(StateStore& state) {
    auto snapshot = state.Snapshot();
    EXPECT_THAT(snapshot, IsOk());
    return *std::move(snapshot);
  }

  std::unique_ptr<SnapshotInstaller> NewInstaller(const std::string& name) {
    auto loader = factory_->NewBulkLoader(dir_.Join(name));
    EXPECT_THAT(loader, IsOk());
    return std::make_unique<SnapshotInstaller>(*std::move(loader));
  }

  std::unique_ptr<SnapshotInstaller> Resume(const std::string& name, const InstallPoint& point) {
    auto loader = factory_->NewBulkLoader(dir_.Join(name), BulkLoad::kResume);
    EXPECT_THAT(loader, IsOk());
    auto installer = SnapshotInstaller::Resume(*std::move(loader), point);
    EXPECT_THAT(installer, IsOk());
    return *std::move(installer);
  }

  // The head that `snapshot` begins a stream with.
  static SnapshotMeta MetaAt(const StateSnapshot& snapshot) {
    SnapshotMeta meta;
    meta.cluster_id = "0123456789abcdef01234567";
    meta.node_id = "p1";
    meta.history = {{1, 1, 42}};
    meta.position = snapshot.position();
    return meta;
  }

  static std::vector<EncodedChunk> Encode(const SnapshotPtr& snapshot, size_t chunk_bytes) {
    SnapshotEncoder encoder(snapshot, MetaAt(*snapshot), chunk_bytes);
    return TakeAll(encoder);
  }

  static std::vector<EncodedChunk> TakeAll(SnapshotEncoder& encoder) {
    std::vector<EncodedChunk> chunks;
    for (;;) {
      auto chunk = encoder.Next();
      EXPECT_THAT(chunk, IsOk());
      if (!chunk->has_value()) return chunks;
      chunks.push_back(**std::move(chunk));
    }
  }

  // Takes the rest of a stream from `snapshot` and finishes.
  static absl::Status Complete(SnapshotInstaller& installer, const SnapshotPtr& snapshot, const SnapshotMeta& meta,
                               size_t chunk_bytes) {
    SnapshotEncoder encoder(snapshot, meta, chunk_bytes, installer.RewindToCursor());
    for (const EncodedChunk& chunk : TakeAll(encoder)) {
      if (absl::Status added = installer.AddChunk(chunk); !added.ok()) return added;
    }
    return installer.Finish(encoder.keys(), encoder.digest().Hex());
  }

  static void ExpectSame(StateStore& target, StateStore& source) {
    EXPECT_EQ(target.applied(), source.applied());
    EXPECT_EQ(DigestOf(target), DigestOf(source));
    const SnapshotPtr from = Take(source);
    const SnapshotPtr to = Take(target);
    EXPECT_EQ(Contents(*to), Contents(*from));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const std::string reserved, from->EncodeReserved());
    EXPECT_THAT(to->EncodeReserved(), IsOkAndHolds(reserved));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due_from, source.DueExpiries(UINT64_MAX, 100'000));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due_to, target.DueExpiries(UINT64_MAX, 100'000));
    ASSERT_EQ(due_to.size(), due_from.size());
    for (size_t i = 0; i < due_to.size(); ++i) {
      EXPECT_EQ(due_to[i].key, due_from[i].key);
      EXPECT_EQ(due_to[i].modified_lsn, due_from[i].modified_lsn);
    }
    for (Lsn lsn = 1; lsn <= source.applied().lsn; lsn += 7) {
      for (int client = 0; client < 5; ++client) {
        const std::string name = absl::StrCat("client-", client);
        TOWLINE_ASSERT_OK_AND_ASSIGN(const RequestLookup expected, source.LookupRequest(name, lsn));
        TOWLINE_ASSERT_OK_AND_ASSIGN(const RequestLookup found, target.LookupRequest(name, lsn));
        EXPECT_EQ(found.lsn, expected.lsn) << name << " " << lsn;
        EXPECT_EQ(found.outcome, expected.outcome) << name << " " << lsn;
      }
    }
  }

  TempDir dir_;
  std::unique_ptr<StoreFactory> factory_ = NewEngineUnderTest();
};

TEST_F(ResumeTest, AStreamThatGoesOnBehindAnyChunkOfEntriesIsTheSameByteForByte) {
  const TestLog log = DenseLog(3, 800);
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const SnapshotPtr snapshot = Take(*source);
  for (const size_t chunk_bytes : {400, 3000, 100'000}) {
    SCOPED_TRACE(chunk_bytes);
    const std::vector<EncodedChunk> chunks = Encode(snapshot, chunk_bytes);
    const auto installer = NewInstaller(absl::StrCat("target", chunk_bytes));
    size_t resumed = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
      const SnapshotCursor& cursor = installer->cursor();
      if (chunks[i].keys == 0) {  // the end
        ASSERT_LT(cursor.sequence, chunks[i].sequence);
        continue;
      }
      ++resumed;
      ASSERT_EQ(cursor.sequence, i + 1);
      ASSERT_EQ(cursor.last_key, chunks[i].last_key);
      SnapshotEncoder encoder(snapshot, MetaAt(*snapshot), chunk_bytes, cursor);
      const std::vector<EncodedChunk> rest = TakeAll(encoder);
      ASSERT_EQ(rest.size(), chunks.size() - i - 1);
      for (size_t n = 0; n < rest.size(); ++n) {
        const EncodedChunk& expected = chunks[i + 1 + n];
        ASSERT_EQ(rest[n].data, expected.data) << "chunk " << i + 2 + n << " behind " << i + 1;
        ASSERT_EQ(rest[n].sequence, expected.sequence);
        ASSERT_EQ(rest[n].crc32c, expected.crc32c);
        ASSERT_EQ(rest[n].keys, expected.keys);
        ASSERT_EQ(rest[n].first_key, expected.first_key);
        ASSERT_EQ(rest[n].last_key, expected.last_key);
      }
      TOWLINE_ASSERT_OK_AND_ASSIGN(const StateDigest digest, snapshot->Digest());
      ASSERT_EQ(encoder.keys(), digest.keys);
      ASSERT_EQ(encoder.digest().Hex(), digest.sum.Hex());
      ASSERT_EQ(encoder.chunks(), chunks.size());
    }
    EXPECT_GT(resumed, 0u);
  }
}

// What is in memory only when the process dies: entries behind the commit, and expiry entries of all of it.
TEST_F(ResumeTest, ALoadGoesOnFromEveryCommit) {
  const TestLog log = DenseLog(4, 700);
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const SnapshotPtr snapshot = Take(*source);
  const size_t chunk_bytes = EngineIsCheap() ? 300 : 800;
  const std::vector<EncodedChunk> chunks = Encode(snapshot, chunk_bytes);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due, source->DueExpiries(UINT64_MAX, 100'000));
  ASSERT_FALSE(due.empty());
  int loads = 0;
  for (size_t at = 0; at < chunks.size(); ++at) {
    if (chunks[at].keys == 0) break;
    ++loads;
    const std::string name = absl::StrCat("target", at);
    InstallPoint point;
    {
      const auto installer = NewInstaller(name);
      for (size_t i = 0; i <= at; ++i) {
        ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
        if (i != at && i % 2 == 0) continue;
        TOWLINE_ASSERT_OK_AND_ASSIGN(point, installer->Commit());
      }
      EXPECT_EQ(installer->pending_bytes(), 0u);
      EXPECT_EQ(point.cursor.sequence, at + 1);
      EXPECT_EQ(point.meta, MetaAt(*snapshot));
      for (size_t i = at + 1; i < std::min(at + 3, chunks.size()); ++i) {
        ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
      }
    }
    const auto installer = Resume(name, point);
    EXPECT_EQ(installer->meta(), point.meta);
    EXPECT_EQ(installer->cursor(), point.cursor);
    EXPECT_EQ(installer->bytes(), point.cursor.bytes);
    ASSERT_THAT(Complete(*installer, snapshot, point.meta, chunk_bytes), IsOk());
    const auto target = Open(name);
    ExpectSame(*target, *source);
  }
  EXPECT_GT(loads, 2);
}

// Of many keys with expiry the index is made durable on the way, and only the rest of it is built again.
TEST_F(ResumeTest, TheExpiryIndexOfALargeLoadIsWholeAfterACrash) {
  TestLog log;
  for (int i = 100; i < 260; ++i) {
    log.Append(ChangeBuilder().Put(absl::StrCat(i, std::string(60'000, 'k')), "v", 1000 + i).Encode());
  }
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const SnapshotPtr snapshot = Take(*source);
  const std::vector<EncodedChunk> chunks = Encode(snapshot, 500'000);
  InstallPoint point;
  std::vector<std::string> indexed;
  {
    const auto installer = NewInstaller("target");
    for (size_t i = 0; i + 4 < chunks.size(); ++i) {
      ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
      TOWLINE_ASSERT_OK_AND_ASSIGN(point, installer->Commit());
      if (indexed.empty() || indexed.back() != point.indexed_key) indexed.push_back(point.indexed_key);
    }
  }
  EXPECT_GT(indexed.size(), 1u);
  EXPECT_TRUE(std::is_sorted(indexed.begin(), indexed.end()));
  EXPECT_LT(point.indexed_key, point.cursor.last_key);
  const auto installer = Resume("target", point);
  ASSERT_THAT(Complete(*installer, snapshot, point.meta, 500'000), IsOk());
  const auto target = Open("target");
  ExpectSame(*target, *source);
}

TEST_F(ResumeTest, AChunkThatIsRefusedUnreadCanBeSentAgain) {
  const TestLog log = DenseLog(5, 500);
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const SnapshotPtr snapshot = Take(*source);
  const std::vector<EncodedChunk> chunks = Encode(snapshot, 400);
  const auto installer = NewInstaller("target");
  SnapshotEncoder totals(snapshot, MetaAt(*snapshot), 400);
  TakeAll(totals);
  for (size_t i = 0; i < chunks.size(); ++i) {
    std::vector<EncodedChunk> bad(5, chunks[i]);
    bad[0].data[bad[0].data.size() / 2] ^= 4;
    bad[1].data.pop_back();
    bad[2].sequence += 1;
    bad[3].sequence -= 1;
    bad[4].crc32c ^= 1;
    const SnapshotCursor before = installer->cursor();
    for (const EncodedChunk& chunk : bad) {
      ASSERT_THAT(installer->AddChunk(chunk), ReasonIs("snapshot_malformed"));
      ASSERT_TRUE(installer->usable());
      ASSERT_EQ(installer->cursor(), before);
    }
    ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
    if (i == 2) {
      ASSERT_THAT(installer->Commit(), IsOk());
    }
    if (chunks[i].keys != 0) {
      ASSERT_EQ(installer->RewindToCursor().sequence, chunks[i].sequence);
    }
  }
  ASSERT_THAT(installer->Finish(totals.keys(), totals.digest().Hex()), IsOk());
  const auto target = Open("target");
  ExpectSame(*target, *source);
}

// Something of such a chunk may have been taken: the load goes on behind the last commit.
TEST_F(ResumeTest, AChunkThatIsMalformedInsideEndsTheLoadAndAnotherGoesOn) {
  const TestLog log = DenseLog(6, 500);
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const SnapshotPtr snapshot = Take(*source);
  const std::vector<EncodedChunk> chunks = Encode(snapshot, 400);
  ASSERT_GT(chunks.size(), 6u);
  InstallPoint point;
  {
    const auto installer = NewInstaller("target");
    for (int i = 0; i < 3; ++i) ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
    TOWLINE_ASSERT_OK_AND_ASSIGN(point, installer->Commit());
    ASSERT_THAT(installer->AddChunk(chunks[3]), IsOk());
    EncodedChunk bad = chunks[4];
    bad.data.back() ^= 1;
    bad.data.resize(bad.data.size() - 1);
    bad.crc32c = Crc32c(bad.data);
    EXPECT_THAT(installer->AddChunk(bad), ReasonIs("snapshot_malformed"));
    EXPECT_FALSE(installer->usable());
    EXPECT_FALSE(installer->AddChunk(chunks[4]).ok());
    EXPECT_FALSE(installer->Commit().ok());
  }
  const auto installer = Resume("target", point);
  ASSERT_TRUE(installer->usable());
  for (size_t i = 3; i + 1 < chunks.size(); ++i) ASSERT_THAT(installer->AddChunk(chunks[i]), IsOk());
  ASSERT_THAT(Complete(*installer, snapshot, point.meta, 400), IsOk());
  const auto target = Open("target");
  ExpectSame(*target, *source);
}

TEST_F(ResumeTest, ALoadWithoutACommitBeginsAnewInTheSameDirectory) {
  const TestLog log = DenseLog(7, 300);
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const SnapshotPtr snapshot = Take(*source);
  {
    const auto installer = NewInstaller("target");
    ASSERT_THAT(installer->AddChunk(Encode(snapshot, 200)[0]), IsOk());
  }
  const auto installer = Resume("target", {});
  ASSERT_THAT(Complete(*installer, snapshot, MetaAt(*snapshot), 200), IsOk());
  const auto target = Open("target");
  ExpectSame(*target, *source);
}

// One load with crashes and snapshots lost at random, while the source goes on.
class RolledLoad {
 public:
  RolledLoad(SeededRng& rng, const TestLog& log, StateStore& source, size_t chunk_bytes)
      : rng_(rng), log_(log), source_(source), chunk_bytes_(chunk_bytes) {}

  void Roll() {
    const Lsn ahead = std::min<Lsn>(log_.last(), source_.applied().lsn + rng_.Below(120));
    if (ahead > source_.applied().lsn) {
      ASSERT_THAT(source_.Apply(log_.Records(source_.applied().lsn + 1, ahead)), IsOk());
    }
    auto taken = source_.Snapshot();
    ASSERT_THAT(taken, IsOk());
    snapshot_ = *taken;
    encoder_.reset();
    ++rolls;
  }

  // Takes a chunk; false behind the end.
  bool TakeOne(SnapshotInstaller& installer) {
    if (encoder_ == nullptr) {
      if (installer.RewindToCursor().sequence == 0) meta.position = snapshot_->position();  // begins anew
      encoder_ = std::make_unique<SnapshotEncoder>(snapshot_, meta, chunk_bytes_, installer.RewindToCursor());
    }
    auto chunk = encoder_->Next();
    EXPECT_THAT(chunk, IsOk());
    if (!chunk->has_value()) return false;
    EXPECT_THAT(installer.AddChunk(**chunk), IsOk());
    return true;
  }
  void Cut() { encoder_.reset(); }
  absl::Status Finish(SnapshotInstaller& installer) {
    return installer.Finish(encoder_->keys(), encoder_->digest().Hex());
  }
  Lsn read() const { return snapshot_->position().lsn; }

  SnapshotMeta meta;  // of the stream
  int rolls = 0;

 private:
  SeededRng& rng_;
  const TestLog& log_;
  StateStore& source_;
  const size_t chunk_bytes_;
  SnapshotPtr snapshot_;
  std::unique_ptr<SnapshotEncoder> encoder_;
};

// A mixture of several moments becomes the exact state of the newest one once the log between them was applied, and
// goes on like its source.
TEST_F(ResumeTest, AMixtureOfSnapshotsIsExactOnceTheLogBetweenThemIsReplayed) {
  int rolls = 0;
  for (int seed = 1; seed <= (EngineIsCheap() ? 30 : 6); ++seed) {
    SCOPED_TRACE(seed);
    SeededRng rng(seed);
    const TestLog log = DenseLog(1000 + seed, 900);
    const auto source = Open(absl::StrCat("source", seed));
    ASSERT_THAT(source->Apply(log.Records(1, 100 + rng.Below(300))), IsOk());
    RolledLoad load(rng, log, *source, 100 + rng.Below(1500));
    load.Roll();
    load.meta = MetaAt(*Take(*source));
    const std::string name = absl::StrCat("target", seed);
    auto installer = NewInstaller(name);
    InstallPoint point;
    int budget = 40;
    while (load.TakeOne(*installer)) {
      const uint64_t what = rng.Below(12);
      if (what == 0) {
        load.Cut();  // and from the same snapshot again
      } else if (what == 1 && budget-- > 0) {
        load.Roll();
      } else if (what < 5) {
        TOWLINE_ASSERT_OK_AND_ASSIGN(point, installer->Commit());
      } else if (what == 5 && budget-- > 0) {
        installer.reset();
        installer = Resume(name, point);
        load.Cut();
        if (rng.OneIn(2)) load.Roll();
      }
    }
    ASSERT_THAT(load.Finish(*installer), IsOk());
    installer.reset();
    rolls += load.rolls;

    const auto target = Open(name);
    EXPECT_EQ(target->applied(), load.meta.position);
    const Lsn read = load.read();
    ASSERT_EQ(source->applied().lsn, read);
    if (read > target->applied().lsn) {
      ASSERT_THAT(target->Apply(log.Records(target->applied().lsn + 1, read)), IsOk());
    }
    ExpectSame(*target, *source);
    EXPECT_EQ(Contents(*Take(*target)), ModelAt(log, read));
    ASSERT_THAT(ApplyRest(*source, log, 50), IsOk());
    ASSERT_THAT(ApplyRest(*target, log, 31), IsOk());
    ExpectSame(*target, *source);
    if (HasFailure()) return;
  }
  EXPECT_GT(rolls, EngineIsCheap() ? 60 : 10);
}

}  // namespace
}  // namespace towline::test
