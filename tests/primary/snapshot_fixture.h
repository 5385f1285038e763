// A serving node and receivers of its snapshots.

#ifndef TOWLINE_TESTS_PRIMARY_SNAPSHOT_FIXTURE_H_
#define TOWLINE_TESTS_PRIMARY_SNAPSHOT_FIXTURE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/error.h"
#include "store/snapshot_codec.h"
#include "tests/primary/source_fixture.h"

namespace towline::test {

// A FetchSnapshot stream as its receiver sees it.
struct Received {
  v1::SnapshotHeader header;
  std::vector<v1::SnapshotChunk> chunks;
  std::optional<v1::SnapshotEnd> end;
  absl::Status status;
};

class SnapshotSessionTest : public SourceTest {
 protected:
  explicit SnapshotSessionTest(bool store_files = false) : SourceTest(store_files) {}

  void SetUp() override {
    options_.planner.replay_max_bytes = 1000;  // everything is too large to be replayed
    SourceTest::SetUp();
    Write(30);
  }

  static v1::FetchSnapshotRequest Request(const v1::PullStart& start) {
    v1::FetchSnapshotRequest request;
    *request.mutable_start() = start;
    return request;
  }

  std::unique_ptr<SnapshotSession> Open(const v1::PullStart& start) {
    absl::StatusOr<std::unique_ptr<SnapshotSession>> session = source_->NewSnapshotSession(Request(start), [] {});
    EXPECT_THAT(session, IsOk());
    return session.ok() ? *std::move(session) : nullptr;
  }

  static NextResult TakeOne(SnapshotSession& session, Received* received) {
    v1::FetchSnapshotResponse response;
    const NextResult result = session.Next(&response);
    if (result == NextResult::kEnd) received->status = session.end_status();
    if (result != NextResult::kMessage) return result;
    if (response.has_header()) received->header = response.header();
    if (response.has_chunk()) received->chunks.push_back(response.chunk());
    if (response.has_end()) received->end = response.end();
    return result;
  }

  static void TakeAll(SnapshotSession& session, Received* received) {
    while (TakeOne(session, received) == NextResult::kMessage) {
    }
  }

  // Loads what was received into a new store.
  std::unique_ptr<StateStore> Install(const Received& received, const std::string& directory) {
    absl::StatusOr<std::unique_ptr<StoreBulkLoader>> loader = stores_.NewBulkLoader(directory);
    EXPECT_THAT(loader, IsOk());
    SnapshotInstaller installer(*std::move(loader));
    for (const v1::SnapshotChunk& chunk : received.chunks) {
      EncodedChunk encoded{chunk.sequence(), chunk.first_key(), chunk.last_key(),
                           chunk.keys(),     chunk.crc32c(),    chunk.data()};
      EXPECT_THAT(installer.AddChunk(encoded), IsOk());
    }
    EXPECT_THAT(installer.Finish(received.end->keys(), received.end->digest()), IsOk());
    absl::StatusOr<std::unique_ptr<Store>> store = stores_.Open(directory);
    EXPECT_THAT(store, IsOk());
    absl::StatusOr<std::unique_ptr<StateStore>> state = StateStore::Open(*std::move(store));
    EXPECT_THAT(state, IsOk());
    return *std::move(state);
  }

  static std::string DigestOf(StateStore& state) { return (*state.Snapshot())->Digest()->sum.Hex(); }
};

}  // namespace towline::test

#endif  // TOWLINE_TESTS_PRIMARY_SNAPSHOT_FIXTURE_H_
