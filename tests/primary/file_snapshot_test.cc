// Snapshots that are sent as files of the store: which are made, what is left out, what is never sent.

#include "primary/file_snapshot.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "tests/primary/snapshot_fixture.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using Counts = std::map<std::string, uint64_t>;

constexpr char kForm[] = "memory-1";
constexpr char kPlace[] = "snapshots";
constexpr char kFile[] = "MEMSTORE";

class FileSnapshotTest : public SnapshotSessionTest {
 protected:
  FileSnapshotTest() : SnapshotSessionTest(/*store_files=*/true) {}

  void SetUp() override {
    SnapshotSessionTest::SetUp();
    Write(200, 20'000);  // four chunks
    OfferFiles();
  }

  void OfferFiles() { static_cast<FakeGeneration&>(*host_.live).files.emplace(FileSnapshotPlace{fs_, kPlace, kForm}); }

  // What a stream of files brought, by file, in front of it what was held.
  struct Taken {
    v1::SnapshotHeader header;
    std::map<std::string, std::string> files;
    uint64_t sent = 0;
    bool ended = false;
    absl::Status status;
  };

  std::unique_ptr<SnapshotSession> OpenFiles(const v1::FetchSnapshotRequest& request) {
    auto session = source_->NewSnapshotSession(request, [] {});
    EXPECT_THAT(session, IsOk());
    return session.ok() ? *std::move(session) : nullptr;
  }

  static v1::FetchSnapshotRequest Offer(const v1::PullStart& start, const std::string& form = kForm) {
    v1::FetchSnapshotRequest request = Request(start);
    request.set_file_form(form);
    return request;
  }

  // Up to `messages` messages.
  static void TakeFiles(SnapshotSession& session, Taken* taken, int messages = 1000) {
    for (; messages > 0; --messages) {
      v1::FetchSnapshotResponse response;
      const NextResult result = session.Next(&response);
      if (result == NextResult::kEnd) taken->status = session.end_status();
      if (result != NextResult::kMessage) return;
      ASSERT_FALSE(response.has_chunk());
      if (response.has_header()) taken->header = response.header();
      if (response.has_end()) taken->ended = true;
      if (!response.has_file_chunk()) continue;
      const v1::SnapshotFileChunk& chunk = response.file_chunk();
      EXPECT_EQ(chunk.snapshot_id(), taken->header.snapshot_id());
      const v1::SnapshotFile& file = taken->header.files(static_cast<int>(chunk.file()));
      std::string& content = taken->files[file.name()];
      EXPECT_EQ(chunk.offset(), content.size());
      content += chunk.data();
      EXPECT_EQ(chunk.crc32c(), Crc32c(content));
      EXPECT_LE(content.size(), file.size());
      taken->sent += chunk.data().size();
    }
  }

  Taken TakeAllFiles(const v1::FetchSnapshotRequest& request) { return TakeAllFiles(request, Taken()); }
  Taken TakeAllFiles(const v1::FetchSnapshotRequest& request, Taken taken) {
    const auto session = OpenFiles(request);
    taken.sent = 0;
    if (session != nullptr) TakeFiles(*session, &taken);
    EXPECT_TRUE(taken.ended) << taken.status;
    return taken;
  }

  static void Hold(const Taken& taken, v1::FetchSnapshotRequest* request) {
    request->set_held_snapshot_id(taken.header.snapshot_id());
    for (const auto& [name, content] : taken.files) {
      v1::SnapshotFile* held = request->add_held();
      held->set_name(name);
      held->set_held_bytes(content.size());
      held->set_held_crc32c(Crc32c(content));
    }
  }

  // Opens what was received as a store.
  std::unique_ptr<StateStore> OpenReceived(const Taken& taken, const std::string& directory) {
    for (const auto& [name, content] : taken.files) fs_.SetContents(absl::StrCat(directory, "/", name), content);
    auto store = stores_.Open(directory);
    EXPECT_THAT(store, IsOk());
    return *StateStore::Open(*std::move(store));
  }

  Counts Streams() const { return source_->Counters().snapshot_streams; }
};

TEST_F(FileSnapshotTest, WhoTakesFilesGetsTheStateThatIsPersistedAtItsPosition) {
  const Lsn applied = host_.live->state().applied().lsn;
  EXPECT_LT(*host_.live->state().PersistedLsn(), applied);
  const Taken taken = TakeAllFiles(Offer(ReplicaStart("r1", 0)));
  EXPECT_EQ(taken.header.position().lsn(), applied);  // it was flushed for that
  EXPECT_EQ(taken.header.read_position().lsn(), applied);
  EXPECT_EQ(taken.header.estimated_bytes(), taken.sent);
  EXPECT_EQ(SlotOf("r1").confirmed_lsn, applied);
  EXPECT_EQ(SlotOf("r1").state, slots::SlotState::kBootstrapping);
  const auto received = OpenReceived(taken, "/received");
  EXPECT_EQ(received->applied(), host_.live->state().applied());
  EXPECT_EQ(DigestOf(*received), DigestOf(host_.live->state()));
  EXPECT_EQ(Streams(), (Counts{{"new", 1}}));
  EXPECT_EQ(source_->Counters().snapshot_bytes_sent, taken.sent);
}

TEST_F(FileSnapshotTest, OtherFormsAndUnfinishedRdbStreamsGetRdb) {
  for (const char* form : {"", "memory-2"}) {
    Received received;
    auto session = OpenFiles(Offer(ReplicaStart("r1", 0), form));
    TakeAll(*session, &received);
    EXPECT_TRUE(received.end.has_value());
    EXPECT_FALSE(received.chunks.empty());
    EXPECT_TRUE(received.header.files().empty());
  }
  static_cast<FakeGeneration&>(*host_.live).files.reset();  // this node sends no files
  Received received;
  auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
  TakeAll(*session, &received);
  EXPECT_FALSE(received.chunks.empty());
}

TEST_F(FileSnapshotTest, SnapshotsOfOneFormAreSharedAndOtherFormsAreNot) {
  const auto first = OpenFiles(Offer(ReplicaStart("r1", 0)));
  v1::PullStart other = ReplicaStart("r2", 0);
  other.set_incarnation(21);
  const auto second = OpenFiles(Offer(other));
  v1::PullStart third = ReplicaStart("r3", 0);
  third.set_incarnation(22);
  const auto rdb = OpenFiles(Request(third));
  EXPECT_EQ(source_->Snapshots().pool.live, 2u);
  EXPECT_EQ(Streams(), (Counts{{"new", 2}, {"joined", 1}}));
  Taken a;
  Taken b;
  TakeFiles(*first, &a);
  TakeFiles(*second, &b);
  EXPECT_EQ(a.files, b.files);
  Received received;
  TakeAll(*rdb, &received);
  EXPECT_EQ(received.header.position().lsn(), a.header.position().lsn());
}

TEST_F(FileSnapshotTest, UnderALimitPiecesAreSmall) {
  options_.snapshots.bytes_per_second = 1 << 30;
  OpenNode();
  OfferFiles();
  Taken cut;
  const auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
  TakeFiles(*session, &cut, 3);  // header, two pieces
  EXPECT_EQ(cut.sent, 2 * kPacedPieceBytes);
}

TEST_F(FileSnapshotTest, ACutStreamGoesOnBehindWhatIsHeldOfTheSameSnapshot) {
  Taken cut;
  {
    const auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
    TakeFiles(*session, &cut, 3);  // header, two pieces
  }
  EXPECT_EQ(cut.sent, 2 * kFileChunkBytes);
  v1::FetchSnapshotRequest again = Offer(ReplicaStart("r1", 0));
  Hold(cut, &again);
  const Taken rest = TakeAllFiles(again, cut);
  EXPECT_EQ(rest.header.snapshot_id(), cut.header.snapshot_id());
  EXPECT_EQ(rest.header.files(0).held_bytes(), cut.sent);
  EXPECT_EQ(rest.sent, rest.header.files(0).size() - cut.sent);
  EXPECT_EQ(DigestOf(*OpenReceived(rest, "/received")), DigestOf(host_.live->state()));
  EXPECT_EQ(Streams(), (Counts{{"new", 1}, {"resumed", 1}}));
}

TEST_F(FileSnapshotTest, ANewerSnapshotLeavesOutWhatIsTheSame) {
  const Taken first = TakeAllFiles(Offer(ReplicaStart("r1", 0)));
  Pass(options_.snapshots.linger_micros + 1'000'000);
  EXPECT_EQ(source_->Snapshots().pool.live, 0u);
  v1::FetchSnapshotRequest again = Offer(ReplicaStart("r1", 0));
  Hold(first, &again);
  const Taken same = TakeAllFiles(again, first);  // nothing was written
  EXPECT_NE(same.header.snapshot_id(), first.header.snapshot_id());
  EXPECT_EQ(same.sent, 0u);
  Pass(options_.snapshots.linger_micros + 1'000'000);
  Write(1);
  Taken empty;
  const Taken other = TakeAllFiles(again, empty);  // the one file is another one now
  EXPECT_EQ(other.header.files(0).held_bytes(), 0u);
  EXPECT_EQ(DigestOf(*OpenReceived(other, "/received")), DigestOf(host_.live->state()));
  EXPECT_EQ(Streams(), (Counts{{"new", 1}, {"rolled", 2}}));
}

TEST_F(FileSnapshotTest, WhatAReceiverSaysIsNotBelieved) {
  const Taken whole = TakeAllFiles(Offer(ReplicaStart("r1", 0)));
  const std::string& content = whole.files.at(kFile);
  const auto ask = [&](const std::string& name, uint64_t bytes, uint32_t crc) {
    v1::FetchSnapshotRequest request = Offer(ReplicaStart("r1", 0));
    v1::SnapshotFile* held = request.add_held();
    held->set_name(name);
    held->set_held_bytes(bytes);
    held->set_held_crc32c(crc);
    Taken taken;
    const auto session = OpenFiles(request);
    TakeFiles(*session, &taken, 1);
    return taken.header.files(0).held_bytes();
  };
  EXPECT_EQ(ask(kFile, 4096, Crc32c(content.substr(0, 4096))), 4096u);
  EXPECT_EQ(ask(kFile, content.size(), Crc32c(content)), content.size());
  EXPECT_EQ(ask(kFile, 4096, Crc32c(content.substr(0, 4096)) ^ 1), 0u);
  EXPECT_EQ(ask(kFile, 4097, Crc32c(content.substr(0, 4096))), 0u);
  EXPECT_EQ(ask(kFile, content.size() + 1, Crc32c(content)), 0u);
  EXPECT_EQ(ask(kFile, ~0ull, 0), 0u);
  EXPECT_EQ(ask("../MEMSTORE", 4096, Crc32c(content.substr(0, 4096))), 0u);
  v1::FetchSnapshotRequest nameless = Offer(ReplicaStart("r1", 0));
  nameless.add_held()->set_held_bytes(1);
  EXPECT_THAT(source_->NewSnapshotSession(nameless, [] {}), ReasonIs("invalid_start"));
}

TEST_F(FileSnapshotTest, TheCopyIsThereAsLongAsTheSnapshotIsKept) {
  {
    const auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
    EXPECT_THAT(fs_.Names(kPlace), ::testing::SizeIs(1));
  }
  Pass(options_.snapshots.linger_micros + 1'000'000);
  EXPECT_THAT(fs_.Names(kPlace), ::testing::IsEmpty());
}

TEST_F(FileSnapshotTest, ARestartedNodeGoesOnWithTheSameSnapshot) {
  Taken cut;
  {
    const auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
    TakeFiles(*session, &cut, 3);
  }
  const std::string digest = DigestOf(host_.live->state());
  const uint64_t generation = SlotOf("r1").generation;
  CloseNode();
  OpenNode();
  static_cast<FakeGeneration&>(*host_.live).files.emplace(FileSnapshotPlace{fs_, kPlace, kForm});
  Write(20, 20'000);
  v1::FetchSnapshotRequest again = Offer(ReplicaStart("r1", 0));
  Hold(cut, &again);
  const Taken rest = TakeAllFiles(again, cut);
  EXPECT_EQ(rest.header.snapshot_id(), cut.header.snapshot_id());
  EXPECT_EQ(rest.header.position().lsn(), cut.header.position().lsn());
  EXPECT_EQ(rest.sent + cut.sent, rest.header.files(0).size());
  EXPECT_EQ(DigestOf(*OpenReceived(rest, "/received")), digest);
  EXPECT_EQ(SlotOf("r1").generation, generation);  // one full resync, not two
  EXPECT_EQ(Streams(), (Counts{{"resumed", 1}}));
  Pass(options_.snapshots.linger_micros + 1'000'000);
  EXPECT_THAT(fs_.Names(kPlace), ::testing::IsEmpty());
}

TEST_F(FileSnapshotTest, WhatIsOfNoUseAfterARestartIsRemoved) {
  TakeAllFiles(Offer(ReplicaStart("r1", 0)));
  const std::string name = fs_.Names(kPlace).front();
  CloseNode();
  OpenNode();
  ASSERT_THAT(fs_.Names(kPlace), ElementsAre(name));
  const std::string record = fs_.Contents(absl::StrCat(kPlace, "/", name, "/SNAPSHOT"));
  const std::string content = fs_.Contents(absl::StrCat(kPlace, "/", name, "/", kFile));
  for (const char* whole : {"1", "2"}) fs_.SetContents(absl::StrCat(kPlace, "/", whole, "/", kFile), content);
  FileSnapshotRecord other = *DecodeFileSnapshot(record);
  other.position.term_id ^= 1;
  fs_.SetContents(absl::StrCat(kPlace, "/1/SNAPSHOT"), EncodeFileSnapshot(other));  // of another line
  other = *DecodeFileSnapshot(record);
  other.files[0].size += 1;
  fs_.SetContents(absl::StrCat(kPlace, "/2/SNAPSHOT"), EncodeFileSnapshot(other));  // not its file
  fs_.SetContents(absl::StrCat(kPlace, "/3/", kFile), "x");                         // not whole
  fs_.SetContents(absl::StrCat(kPlace, "/making/", kFile), "x");
  fs_.FlipBit(absl::StrCat(kPlace, "/", name, "/SNAPSHOT"), 100);
  static_cast<FakeGeneration&>(*host_.live).files.emplace(FileSnapshotPlace{fs_, kPlace, kForm});
  Pass(2'000'000);
  EXPECT_THAT(fs_.Names(kPlace), ::testing::IsEmpty());
  EXPECT_EQ(source_->Snapshots().pool.live, 0u);
}

TEST_F(FileSnapshotTest, AFullDiskHereIsNoReasonToWait) {
  fs_.FailNext(SimCall::kWrite, FileError(28 /* ENOSPC */, "write", "MEMSTORE"), "MEMSTORE");
  Received received;
  auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
  TakeAll(*session, &received);
  EXPECT_TRUE(received.end.has_value());
  EXPECT_FALSE(received.chunks.empty());
}

TEST_F(FileSnapshotTest, NoMoreIsReadForComparingThanTheLimit) {
  FlushStore();
  auto made = FileSnapshot::Make(fs_, host_.live->state(), kPlace, 1, 0);
  ASSERT_THAT(made, IsOk());
  const uint64_t size = (*made)->files()[0].size;
  const std::string content = fs_.Contents(absl::StrCat(kPlace, "/1/", kFile));
  std::vector<HeldFile> held(kCompareBytesMax / size + 1, HeldFile{kFile, size, 1});
  held.push_back({kFile, size, Crc32c(content)});
  FileSender sender(**made);
  ASSERT_THAT(sender.LeaveOut(held), IsOk());
  EXPECT_EQ(sender.held_bytes(0), 0u);
  ASSERT_THAT(FileSender(**made).LeaveOut({{held.back()}}), IsOk());
}

TEST_F(FileSnapshotTest, FilesThatTheStoreHasDroppedArePinned) {
  const auto session = OpenFiles(Offer(ReplicaStart("r1", 0)));
  Taken taken;
  TakeFiles(*session, &taken, 1);
  EXPECT_EQ(source_->Snapshots().pool.pinned_bytes, taken.header.files(0).size());  // the store in memory links nothing
}

// A file that is not what the engine wrote never reaches its end.
TEST_F(FileSnapshotTest, AFileThatTheEngineKnowsOtherwiseIsNotSent) {
  class KnowsSums : public Store {
   public:
    explicit KnowsSums(Store& inner) : inner_(inner) {}
    std::unique_ptr<StoreBatch> NewBatch() override { return inner_.NewBatch(); }
    absl::Status Write(std::unique_ptr<StoreBatch> batch) override { return inner_.Write(std::move(batch)); }
    absl::StatusOr<std::optional<std::string>> Get(absl::string_view key) override { return inner_.Get(key); }
    absl::StatusOr<std::optional<std::string>> GetPersisted(absl::string_view key) override {
      return inner_.GetPersisted(key);
    }
    absl::StatusOr<std::shared_ptr<const StoreSnapshot>> Snapshot() override { return inner_.Snapshot(); }
    absl::Status Flush(bool wait) override { return inner_.Flush(wait); }
    absl::StatusOr<FileSums> Checkpoint(const std::string& directory) override {
      TOWLINE_RETURN_IF_ERROR(inner_.Checkpoint(directory).status());
      return FileSums{{kFile, 4711}};
    }
    StoreStats Stats() override { return inner_.Stats(); }

   private:
    Store& inner_;
  };
  FlushStore();
  auto state = StateStore::Open(std::make_unique<KnowsSums>(host_.live->state().store()));
  ASSERT_THAT(state, IsOk());
  auto made = FileSnapshot::Make(fs_, **state, kPlace, 1, 0);
  ASSERT_THAT(made, IsOk());
  FileSender sender(**made);
  absl::StatusOr<bool> more = true;
  v1::SnapshotFileChunk chunk;
  while (more.ok() && *more) more = sender.Next(&chunk);
  EXPECT_THAT(more, ReasonIs("store_file_damaged"));
  // Its sum is enough for one that is held as a whole: the file is not read.
  const uint64_t size = (*made)->files()[0].size;
  FileSender knows(**made);
  ASSERT_THAT(knows.LeaveOut({{HeldFile{kFile, size, 4711}}}), IsOk());
  EXPECT_EQ(knows.held_bytes(0), size);
  EXPECT_THAT(knows.Next(&chunk), IsOkAndHolds(false));
}

}  // namespace
}  // namespace towline::test
