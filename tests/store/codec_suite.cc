// Snapshot streams: encoding, installing and damage, run against each engine.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "store/snapshot_codec.h"
#include "tests/store/state_test_util.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace towline::test {
namespace {

SnapshotMeta Meta() {
  SnapshotMeta meta;
  meta.cluster_id = "0123456789abcdef01234567";
  meta.node_id = "p1";
  meta.history = {{1, 1, 41}, {2, 5, 0xfedcba9876543210}};
  meta.created_unix_s = 1'700'000'000;
  meta.estimated_keys = 12;
  return meta;
}

class CodecTest : public ::testing::Test {
 protected:
  std::unique_ptr<StateStore> Open(const std::string& name) {
    auto store = factory_->Open(dir_.Join(name));
    EXPECT_THAT(store, IsOk());
    auto state = StateStore::Open(*std::move(store));
    EXPECT_THAT(state, IsOk());
    return *std::move(state);
  }

  std::vector<EncodedChunk> Encode(StateStore& state, size_t chunk_bytes) {
    auto snapshot = state.Snapshot();
    EXPECT_THAT(snapshot, IsOk());
    const auto digest = (*snapshot)->Digest();
    SnapshotEncoder encoder(*snapshot, Meta(), chunk_bytes);
    std::vector<EncodedChunk> chunks;
    for (;;) {
      auto chunk = encoder.Next();
      EXPECT_THAT(chunk, IsOk());
      if (!chunk->has_value()) break;
      chunks.push_back(**std::move(chunk));
    }
    keys_ = encoder.keys();
    digest_ = encoder.digest().Hex();
    EXPECT_EQ(digest_, digest->sum.Hex());
    EXPECT_EQ(keys_, digest->keys);
    EXPECT_EQ(encoder.chunks(), chunks.size());
    EXPECT_EQ(encoder.bytes(), Concatenate(chunks).size());
    return chunks;
  }

  static std::string Concatenate(const std::vector<EncodedChunk>& chunks) {
    std::string all;
    for (const EncodedChunk& chunk : chunks) all += chunk.data;
    return all;
  }

  absl::Status Install(const std::vector<EncodedChunk>& chunks, const std::string& name) {
    auto loader = factory_->NewBulkLoader(dir_.Join(name));
    EXPECT_THAT(loader, IsOk());
    SnapshotInstaller installer(*std::move(loader));
    for (const EncodedChunk& chunk : chunks) {
      if (absl::Status status = installer.AddChunk(chunk); !status.ok()) return status;
    }
    EXPECT_EQ(installer.meta().cluster_id, Meta().cluster_id);
    EXPECT_EQ(installer.meta().node_id, "p1");
    EXPECT_EQ(installer.meta().history, Meta().history);
    EXPECT_EQ(installer.meta().created_unix_s, 1'700'000'000u);
    EXPECT_EQ(installer.meta().estimated_keys, 12u);
    EXPECT_EQ(installer.bytes(), Concatenate(chunks).size());
    EXPECT_EQ(installer.keys(), keys_);
    return installer.Finish(keys_, digest_);
  }

  TempDir dir_;
  std::unique_ptr<StoreFactory> factory_ = NewEngineUnderTest();
  uint64_t keys_ = 0;
  std::string digest_;
};

// Everything that the log gave the source is in the target: entries, LSNs, expiries, request ids, position.
TEST_F(CodecTest, AnInstalledSnapshotEqualsItsSource) {
  for (const size_t chunk_bytes : {1, 200, 4096, 1 << 20}) {
    SCOPED_TRACE(absl::StrCat("chunks of ", chunk_bytes));
    const TestLog log = RandomLog(chunk_bytes, 1200);
    const auto source = Open(absl::StrCat("source", chunk_bytes));
    ASSERT_THAT(ApplyRest(*source, log), IsOk());
    const std::vector<EncodedChunk> chunks = Encode(*source, chunk_bytes);
    if (chunk_bytes == 1) {
      EXPECT_GT(chunks.size(), keys_);
    }
    const std::string name = absl::StrCat("target", chunk_bytes);
    ASSERT_THAT(Install(chunks, name), IsOk());

    const auto target = Open(name);
    EXPECT_EQ(target->applied(), log.PositionAt(log.last()));
    EXPECT_THAT(target->PersistedLsn(), IsOkAndHolds(log.last()));
    EXPECT_EQ(DigestOf(*target), DigestOf(*source));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto from, source->Snapshot());
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto to, target->Snapshot());
    EXPECT_EQ(Contents(*to), Contents(*from));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const std::string reserved, from->EncodeReserved());
    EXPECT_THAT(to->EncodeReserved(), IsOkAndHolds(reserved));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due_from, source->DueExpiries(UINT64_MAX, 10000));
    TOWLINE_ASSERT_OK_AND_ASSIGN(const auto due_to, target->DueExpiries(UINT64_MAX, 10000));
    ASSERT_FALSE(due_from.empty());
    ASSERT_EQ(due_to.size(), due_from.size());
    for (size_t i = 0; i < due_to.size(); ++i) {
      EXPECT_EQ(due_to[i].key, due_from[i].key);
      EXPECT_EQ(due_to[i].modified_lsn, due_from[i].modified_lsn);
    }

    // And it goes on like its source.
    TestLog longer = log;
    SeededRng rng(99);
    for (int i = 0; i < 200; ++i) longer.Append(RandomChange(rng, longer.last() + 1));
    ASSERT_THAT(ApplyRest(*source, longer), IsOk());
    ASSERT_THAT(ApplyRest(*target, longer, 31), IsOk());
    EXPECT_EQ(DigestOf(*target), DigestOf(*source));
  }
}

TEST_F(CodecTest, AnEmptyStateIsOneChunk) {
  const auto source = Open("source");
  const std::vector<EncodedChunk> chunks = Encode(*source, 1 << 20);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].keys, 0u);
  EXPECT_EQ(chunks[0].first_key, "");
  ASSERT_THAT(Install(chunks, "target"), IsOk());
  EXPECT_EQ(DigestOf(*Open("target")), "0:00000000000000000000000000000000");
}

TEST_F(CodecTest, EdgeLengthsOfKeysAndValuesSurvive) {
  TestLog log;
  for (const size_t size : {1, 63, 64, 65, 16383, 16384, 16385, 65535, 65536}) {
    log.Append(ChangeBuilder()
                   .Put(std::string(size, 'k'), std::string(size, '\0'), size % 2 == 0 ? UINT64_MAX - size : 0)
                   .Put(absl::StrCat("v", size), std::string(size, '\xff'))
                   .Encode());
  }
  log.Append(
      ChangeBuilder().Put("empty", "").Put(std::string(1, '\0'), "nul").Put("big", std::string(3 << 20, 'b')).Encode());
  const auto source = Open("source");
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  ASSERT_THAT(Install(Encode(*source, 1000), "target"), IsOk());
  EXPECT_EQ(DigestOf(*Open("target")), DigestOf(*source));
}

TEST_F(CodecTest, ChunksNameTheirKeys) {
  const auto source = Open("source");
  TestLog log;
  for (int i = 10; i < 60; ++i) log.Append(ChangeBuilder().Put(absl::StrCat("key", i), std::string(50, 'v')).Encode());
  ASSERT_THAT(ApplyRest(*source, log), IsOk());
  const std::vector<EncodedChunk> chunks = Encode(*source, 500);
  ASSERT_GT(chunks.size(), 4u);
  std::string last;
  uint64_t keys = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    EXPECT_EQ(chunks[i].sequence, i + 1);
    EXPECT_EQ(chunks[i].crc32c, Crc32c(chunks[i].data));
    keys += chunks[i].keys;
    if (chunks[i].keys == 0) continue;
    EXPECT_GT(chunks[i].first_key, last);
    EXPECT_GE(chunks[i].last_key, chunks[i].first_key);
    last = chunks[i].last_key;
  }
  EXPECT_EQ(keys, 50u);
  EXPECT_EQ(chunks.front().first_key, "key10");
  EXPECT_EQ(last, "key59");
}

// A window of many requests does not make one huge chunk.
TEST_F(CodecTest, TheRequestWindowIsSpreadOverChunks) {
  const auto source = Open("source");
  TestLog log;
  for (uint64_t i = 1; i <= 5000; ++i) log.Append(ChangeBuilder().Request(absl::StrCat("c", i % 3), i).Encode());
  ASSERT_THAT(ApplyRest(*source, log, 512), IsOk());
  const std::vector<EncodedChunk> chunks = Encode(*source, 1000);
  EXPECT_GT(chunks.size(), 8u);
  for (const EncodedChunk& chunk : chunks) EXPECT_LT(chunk.data.size(), 2500u);
  ASSERT_THAT(Install(chunks, "target"), IsOk());
  const auto target = Open("target");
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RequestLookup found, target->LookupRequest("c1", 4999));
  EXPECT_EQ(found.lsn, 4999u);
}

class DamageTest : public CodecTest {
 protected:
  DamageTest() {
    log_.Append(TermStartPayload());
    log_.Append(ChangeBuilder().Put("a", "1").Put("b", "22", 77).Request("c1", 3).Encode());
    log_.Append(ChangeBuilder().Put("c", "333").Encode());
    source_ = Open("source");
    EXPECT_THAT(ApplyRest(*source_, log_), IsOk());
    chunks_ = Encode(*source_, 12);
    EXPECT_GE(chunks_.size(), 3u);
  }

  // Installs into a new directory every time.
  absl::Status TryInstall(const std::vector<EncodedChunk>& chunks) {
    auto loader = factory_->NewBulkLoader(dir_.Join(absl::StrCat("target", ++attempts_)));
    EXPECT_THAT(loader, IsOk());
    SnapshotInstaller installer(*std::move(loader));
    absl::Status status;
    for (const EncodedChunk& chunk : chunks) status.Update(installer.AddChunk(chunk));
    status.Update(installer.Finish(keys_, digest_));
    return status;
  }

  static void Reseal(EncodedChunk* chunk) { chunk->crc32c = Crc32c(chunk->data); }

  TestLog log_;
  std::unique_ptr<StateStore> source_;
  std::vector<EncodedChunk> chunks_;
  int attempts_ = 0;
};

// Even when the chunk's own checksum was made to fit, no flipped bit gets through.
TEST_F(DamageTest, EveryFlippedBitIsRefused) {
  for (size_t c = 0; c < chunks_.size(); ++c) {
    for (size_t bit = 0; bit < chunks_[c].data.size() * 8; bit += EngineIsCheap() ? 1 : 401) {
      std::vector<EncodedChunk> chunks = chunks_;
      chunks[c].data[bit / 8] = static_cast<char>(chunks[c].data[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed")) << "chunk " << c << ", bit " << bit;
      Reseal(&chunks[c]);
      ASSERT_FALSE(TryInstall(chunks).ok()) << "chunk " << c << ", bit " << bit;
    }
  }
}

TEST_F(DamageTest, EveryTruncationIsRefused) {
  for (size_t c = 0; c < chunks_.size(); ++c) {
    for (size_t size = 0; size < chunks_[c].data.size(); size += EngineIsCheap() ? 1 : 101) {
      std::vector<EncodedChunk> chunks = chunks_;
      chunks[c].data.resize(size);
      Reseal(&chunks[c]);
      ASSERT_FALSE(TryInstall(chunks).ok()) << "chunk " << c << " cut at " << size;
    }
  }
}

TEST_F(DamageTest, ChunksOutOfOrderAreRefused) {
  std::vector<EncodedChunk> chunks = chunks_;
  chunks.erase(chunks.begin() + 1);
  EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed"));
  chunks = chunks_;
  chunks.insert(chunks.begin() + 1, chunks[1]);
  EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed"));
  chunks = chunks_;
  std::swap(chunks[0], chunks[1]);
  EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed"));
  // A repeated chunk under the next sequence number: its keys do not rise.
  chunks = chunks_;
  chunks.insert(chunks.begin() + 2, chunks[1]);
  for (size_t i = 0; i < chunks.size(); ++i) chunks[i].sequence = i + 1;
  EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed"));
}

TEST_F(DamageTest, AChunkMustHoldWhatItSays) {
  for (int field = 0; field < 3; ++field) {
    std::vector<EncodedChunk> chunks = chunks_;
    if (field == 0) ++chunks[1].keys;
    if (field == 1) chunks[1].first_key += "x";
    if (field == 2) chunks[1].last_key += "x";
    EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed")) << field;
  }
}

TEST_F(DamageTest, TheTotalsOfTheSenderMustFit) {
  auto loader = factory_->NewBulkLoader(dir_.Join("t1"));
  SnapshotInstaller installer(*std::move(loader));
  for (const EncodedChunk& chunk : chunks_) ASSERT_THAT(installer.AddChunk(chunk), IsOk());
  EXPECT_THAT(installer.Finish(keys_ + 1, digest_), ReasonIs("snapshot_malformed"));
  EXPECT_THAT(installer.Finish(keys_, digest_), ReasonIs("snapshot_malformed")) << "a failure sticks";

  auto second = factory_->NewBulkLoader(dir_.Join("t2"));
  SnapshotInstaller unfinished(*std::move(second));
  ASSERT_THAT(unfinished.AddChunk(chunks_[0]), IsOk());
  EXPECT_THAT(unfinished.Finish(keys_, digest_), ReasonIs("snapshot_malformed"));
}

// A stream that ends early is refused wherever it ends, and so is one that goes on behind its end.
TEST_F(DamageTest, TheStreamEndsWithItsLastChunk) {
  for (size_t count = 0; count < chunks_.size(); ++count) {
    auto loader = factory_->NewBulkLoader(dir_.Join(absl::StrCat("early", count)));
    SnapshotInstaller installer(*std::move(loader));
    for (size_t i = 0; i < count; ++i) ASSERT_THAT(installer.AddChunk(chunks_[i]), IsOk());
    EXPECT_FALSE(installer.Finish(keys_, digest_).ok());
  }
  std::vector<EncodedChunk> chunks = chunks_;
  EncodedChunk more;
  more.sequence = chunks.size() + 1;
  chunks.push_back(more);
  EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed"));
  chunks = chunks_;
  chunks.back().data += "x";
  Reseal(&chunks.back());
  EXPECT_THAT(TryInstall(chunks), ReasonIs("snapshot_malformed"));
}

}  // namespace
}  // namespace towline::test
