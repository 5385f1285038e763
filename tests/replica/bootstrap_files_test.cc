// Re-bootstraps that arrive as files of the upstream's store.

#include <string>

#include "tests/replica/resume_fixture.h"

namespace towline::test {
namespace {

class BootstrapFilesTest : public ResumeFixture {
 protected:
  BootstrapFilesTest() { files_ = true; }

  // Data bytes of all streams so far.
  uint64_t SentBytes() { return node_->status().bootstrap_bytes; }
  static uint64_t SizeOf(const std::string& name, const Stream& stream) {
    for (const v1::SnapshotFile& file : stream[0].header().files()) {
      if (file.name() == name) return file.size();
    }
    return 0;
  }
  uint64_t WholeBytes() {
    const Stream stream = MakeFileSnapshot(log_, read_, {}, kChunkBytes, snapshot_id_);
    return SizeOf("ALWAYS", stream) + SizeOf("MEMSTORE", stream);
  }
  void RunUntilCut(size_t streams_before) {
    ASSERT_TRUE(
        node_->RunUntil([&] { return streams().size() > streams_before && streams().back()->inbox.unread() == 0; }));
  }
};

TEST_F(BootstrapFilesTest, TheStateIsTheSourcesAndTheLogGoesOnBehindIt) {
  AttachAndFallBehind();
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_EQ(node_->control().Get().base.lsn, kFirstRead);
  EXPECT_EQ(node_->control().Get().generation, 2u);
  EXPECT_EQ(node_->status().bootstrap_bytes, WholeBytes());
  EXPECT_EQ(node_->status().bootstrap_bytes_again, 0u);
  EXPECT_EQ(node_->status().full_resyncs, 1u);
  EXPECT_TRUE(node_->fs.Names("data/gen/2") == (std::vector<std::string>{"db", "install.a", "install.b", "wal"}));
}

TEST_F(BootstrapFilesTest, CutsAndRestartsSendNothingAgain) {
  AttachAndFallBehind();
  messages_ = 3;
  for (int i = 0; i < 6; ++i) {
    const size_t before = streams().size();
    RunUntilCut(before);
    EXPECT_EQ(node_->ReadKey("key-3"), "value-3");  // the old state serves
    if (i % 2 == 1) Restart();
  }
  messages_ = 0;
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  uint64_t held = 0;
  for (const v1::SnapshotFile& file : streams().back()->request.held()) held += file.held_bytes();
  EXPECT_GT(held, kChunkBytes * 6);
  EXPECT_EQ(streams().back()->request.held_snapshot_id(), snapshot_id_);
  EXPECT_EQ(streams().back()->request.file_form(), "memory-1");
  EXPECT_EQ(node_->status().bootstrap_bytes + held, WholeBytes());
}

TEST_F(BootstrapFilesTest, ANewerSnapshotIsTakenWithoutAReplay) {
  AttachAndFallBehind();
  messages_ = 6;  // all of ALWAYS, some of MEMSTORE
  RunUntilCut(streams().size());
  LoseSnapshot();
  messages_ = 0;
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_EQ(node_->control().Get().base.lsn, kSecondRead);
  EXPECT_EQ(node_->control().Get().exact_from.lsn, kSecondRead);
  EXPECT_EQ(node_->status().bootstrap_restarts, 0u);
}

TEST_F(BootstrapFilesTest, ADamagedPieceIsFetchedAgainAndThreeInARowBeginAnew) {
  AttachAndFallBehind();
  int damaged = 0;
  change_ = [&](Stream& stream) {
    if (damaged >= 4 || stream.size() < 4) return;
    ++damaged;
    std::string& data = *stream[2].mutable_file_chunk()->mutable_data();
    data[data.size() / 2] ^= 1;
  };
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  EXPECT_EQ(damaged, 4);
}

TEST_F(BootstrapFilesTest, AFullDiskPausesTheLoadAndKeepsWhatIsThere) {
  AttachAndFallBehind();
  messages_ = 4;
  RunUntilCut(streams().size());
  node_->fs.FailNext(SimCall::kWrite, FileError(28 /* ENOSPC */, "write", "part"), "files");
  messages_ = 0;
  ASSERT_TRUE(node_->RunUntil([&] { return node_->status().halt_reason == "disk_full"; }));
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
  // The piece that failed, and the one with which that was told.
  EXPECT_LE(node_->status().bootstrap_bytes_again, 2 * kChunkBytes);
}

TEST_F(BootstrapFilesTest, TheFormMayChangeFromStreamToStream) {
  AttachAndFallBehind();
  messages_ = 5;
  RunUntilCut(streams().size());
  files_ = false;  // the source was restarted with another setting
  RunUntilCut(streams().size());
  EXPECT_EQ(node_->status().bootstrap_restarts, 1u);
  files_ = true;
  messages_ = 0;
  ASSERT_TRUE(RunUntilApplied(kLogEnd));
  ExpectHoldsLog();
}

TEST_F(BootstrapFilesTest, FilesThatWereNotAskedForAreRefused) {
  options_.file_form.clear();
  AttachAndFallBehind();
  ASSERT_TRUE(node_->RunUntil([&] { return streams().size() >= 2; }));
  EXPECT_FALSE(node_->status().bootstrap.has_value());
  EXPECT_EQ(node_->control().Get().generation, 1u);
}

}  // namespace
}  // namespace towline::test
