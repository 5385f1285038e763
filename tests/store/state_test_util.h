// Records, a log of them and a plain model of the state, for the tests of the store.

#ifndef TOWLINE_TESTS_STORE_STATE_TEST_UTIL_H_
#define TOWLINE_TESTS_STORE_STATE_TEST_UTIL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "store/state_store.h"
#include "store/store.h"
#include "tests/support/seeded_rng.h"
#include "towline/v1/change.pb.h"

namespace towline::test {

// The engine that the test program is linked with: engine_memory.cc or engine_rocksdb.cc.
std::unique_ptr<StoreFactory> NewEngineUnderTest();
// Whether a store can be made a thousand times in a test.
bool EngineIsCheap();

// Builds one encoded Change.
class ChangeBuilder {
 public:
  ChangeBuilder& Put(absl::string_view key, absl::string_view value, uint64_t expire_at_ms = 0);
  ChangeBuilder& Delete(absl::string_view key);
  ChangeBuilder& DeleteRange(absl::string_view begin, absl::string_view end);
  ChangeBuilder& Message(absl::string_view topic, absl::string_view payload);
  ChangeBuilder& Request(absl::string_view client_id, uint64_t sequence);
  std::string Encode() const { return change_.SerializeAsString(); }

 private:
  v1::Operation& Add() { return *change_.mutable_batch()->add_operations(); }
  v1::Change change_;
};

std::string TermStartPayload();
std::string MembersPayload();

// Positions and payloads 1, 2, 3, ... as a log would give them.
class TestLog {
 public:
  // Appends a record and returns its LSN.
  Lsn Append(std::string payload);
  Lsn last() const { return positions_.size(); }
  Position PositionAt(Lsn lsn) const { return lsn == 0 ? Position{} : positions_[lsn - 1]; }
  const std::string& PayloadAt(Lsn lsn) const { return payloads_[lsn - 1]; }
  // Records first to last; the views hold as long as the log.
  std::vector<ApplyRecord> Records(Lsn first, Lsn last) const;

 private:
  std::vector<Position> positions_;
  std::vector<std::string> payloads_;
};

// Applies what `store` does not have yet, in batches of up to `batch` records.
absl::Status ApplyRest(StateStore& store, const TestLog& log, size_t batch = 7);

// What the state must be, worked out in the plainest way.
struct ModelEntry {
  std::string value;
  uint64_t expire_at_ms = 0;
  Lsn modified_lsn = 0;

  friend bool operator==(const ModelEntry&, const ModelEntry&) = default;
};
using Model = std::map<std::string, ModelEntry>;
void ApplyToModel(const std::string& payload, Lsn lsn, Model* model);
Model ModelAt(const TestLog& log, Lsn lsn);

// All entries of a snapshot.
Model Contents(const StateSnapshot& snapshot);
std::string DigestOf(StateStore& store);

// A random change over a small set of keys, so that operations meet: puts with and without expiry, deletes, ranges,
// messages, several operations, request ids.
std::string RandomChange(SeededRng& rng, Lsn lsn);

// A log of `records` random changes.
TestLog RandomLog(uint64_t seed, Lsn records);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_STORE_STATE_TEST_UTIL_H_
