// Tests of walking over, verifying and planning to load a whole RDB file, against files in memory that are put together
// from docs/formats/rdb_v9.md or by the snapshot encoder.

#include "store/rdb_check.h"

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "store/key_hash_set.h"
#include "store/memory_store.h"
#include "store/rdb_format.h"
#include "store/rdb_load_plan.h"
#include "store/rdb_writer.h"
#include "store/snapshot_codec.h"
#include "tests/store/state_test_util.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class FileInMemory : public File {
 public:
  explicit FileInMemory(std::string data) : data_(std::move(data)) {}

  absl::StatusOr<size_t> ReadAt(uint64_t offset, size_t size, char* buffer) override {
    const absl::string_view found = absl::string_view(data_).substr(std::min<uint64_t>(offset, data_.size()), size);
    std::copy(found.begin(), found.end(), buffer);
    return found.size();
  }
  absl::StatusOr<uint64_t> Size() override { return data_.size(); }
  absl::Status WritePieces(uint64_t, absl::Span<const absl::string_view>) override {
    return absl::UnimplementedError("");
  }
  absl::Status SyncData() override { return absl::UnimplementedError(""); }
  absl::Status Truncate(uint64_t) override { return absl::UnimplementedError(""); }
  absl::Status Lock() override { return absl::UnimplementedError(""); }
  void DropCache() override {}

 private:
  const std::string data_;
};

absl::Status Ignore(const RdbEvent&, const RdbPlace&) { return absl::OkStatus(); }
absl::Status NoProgress(uint64_t) { return absl::OkStatus(); }

absl::StatusOr<RdbReport> CheckBytes(const std::string& data) {
  FileInMemory file(data);
  return CheckRdb(file, Ignore, NoProgress);
}

std::string WithEof(std::string stream) {
  RdbAppendEof(Crc64JonesExtend(0, stream), &stream);
  return stream;
}

// Appends a list of one element.
void AppendList(absl::string_view key, std::string* out) {
  out->push_back(1);
  RdbAppendString(key, out);
  *out += "\x01\x01x";
}

// As a Redis would write it: two databases, keys in no order, a list, a function.
std::string ForeignBody() {
  std::string stream = "REDIS0010";
  RdbAppendAux("redis-ver", "7.0.15", &stream);
  RdbAppendAux("ctime", "1700000000", &stream);
  stream += std::string("\xf5\x04") + "code";
  RdbAppendSelectDb(0, &stream);
  RdbAppendResizeDb(3, 1, &stream);
  RdbAppendEntry("zebra", "12345", 0, &stream);
  RdbAppendEntry("apple", "", 5'000, &stream);
  AppendList("middle", &stream);
  RdbAppendSelectDb(3, &stream);
  RdbAppendEntry("zebra", "of another database", 0, &stream);
  return stream;
}

SnapshotMeta Meta() {
  SnapshotMeta meta;
  meta.cluster_id = "0123456789abcdef01234567";
  meta.node_id = "p1";
  meta.history = {{1, 1, 42}};
  meta.created_unix_s = 1'700'000'000;
  return meta;
}

// A snapshot of `log` as a file.
std::string TowlineFile(const TestLog& log, size_t chunk_bytes = 300) {
  MemoryStoreFactory factory;
  auto state = StateStore::Open(*factory.Open("db"));
  EXPECT_THAT(ApplyRest(**state, log, 100), IsOk());
  SnapshotEncoder encoder(*(*state)->Snapshot(), Meta(), chunk_bytes);
  std::string all;
  for (;;) {
    auto chunk = encoder.Next();
    EXPECT_THAT(chunk, IsOk());
    if (!chunk->has_value()) return all;
    all += (*chunk)->data;
  }
}

TestLog SmallLog() {
  TestLog log;
  log.Append(TermStartPayload());
  for (int i = 0; i < 40; ++i) {
    log.Append(ChangeBuilder().Put(absl::StrCat("key", 100 + i), "value", i % 4 == 0 ? 4'000'000'000'000 : 0).Encode());
  }
  log.Append(ChangeBuilder().Put("with id", "x").Request("client", 7).Encode());
  return log;
}

TEST(RdbCheck, CountsWhatAForeignFileHolds) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbReport report, CheckBytes(WithEof(ForeignBody())));
  EXPECT_EQ(report.file.version, 10u);
  EXPECT_TRUE(report.file.had_checksum);
  EXPECT_EQ(report.file.bytes, ForeignBody().size() + 9);
  EXPECT_EQ(report.keys, 4u);
  EXPECT_EQ(report.strings, 3u);
  EXPECT_EQ(report.expiring, 1u);
  EXPECT_EQ(report.key_bytes, 15u);
  EXPECT_EQ(report.value_bytes, 24u);
  EXPECT_THAT(report.types, ElementsAre(Pair("function", 1), Pair("list", 1), Pair("string", 3)));
  EXPECT_THAT(report.head, ElementsAre(Pair("ctime", "1700000000"), Pair("redis-ver", "7.0.15")));
  ASSERT_EQ(report.databases.size(), 2u);
  EXPECT_EQ(report.databases.at(0).keys, 3u);
  EXPECT_EQ(report.databases.at(0).strings, 2u);
  EXPECT_EQ(report.databases.at(0).expiring, 1u);
  EXPECT_EQ(report.databases.at(3).keys, 1u);
  EXPECT_FALSE(report.towline.has_value());
}

TEST(RdbCheck, TellsThatThereIsNoChecksum) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbReport report, CheckBytes(ForeignBody() + "\xff" + std::string(8, '\0')));
  EXPECT_FALSE(report.file.had_checksum);
}

TEST(RdbCheck, ReportsASnapshotOfTowline) {
  const TestLog log = SmallLog();
  const std::string data = TowlineFile(log);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbReport report, CheckBytes(data));
  EXPECT_EQ(report.keys, 41u);
  EXPECT_EQ(report.expiring, 10u);
  EXPECT_EQ(report.file.bytes, data.size());
  ASSERT_TRUE(report.towline.has_value());
  EXPECT_EQ(report.towline->cluster_id, Meta().cluster_id);
  EXPECT_EQ(report.towline->node_id, "p1");
  EXPECT_EQ(report.towline->history, Meta().history);
  EXPECT_EQ(report.towline->created_unix_s, 1'700'000'000u);
  EXPECT_EQ(report.towline->position.lsn, log.last());
  // The sum of the entries' hashes, from the plain model.
  Sum128 digest;
  for (const auto& [key, entry] : ModelAt(log, log.last())) {
    digest.Add(EntryDigest(key, entry.value, entry.expire_at_ms, entry.modified_lsn));
  }
  EXPECT_EQ(report.digest, digest.Hex());
}

TEST(RdbCheck, EveryTruncationIsNoticed) {
  for (const std::string& data : {WithEof(ForeignBody()), TowlineFile(SmallLog())}) {
    for (size_t size = 0; size < data.size(); ++size) {
      const auto report = CheckBytes(data.substr(0, size));
      ASSERT_THAT(report, ReasonIs("rdb_malformed")) << size;
      ASSERT_THAT(report.status().message(), HasSubstr(absl::StrCat("ends at byte ", size)));
    }
  }
}

TEST(RdbCheck, EveryFlippedBitIsNoticed) {
  for (const std::string& data : {WithEof(ForeignBody()), TowlineFile(SmallLog())}) {
    for (size_t bit = 0; bit < data.size() * 8; ++bit) {
      std::string damaged = data;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      ASSERT_FALSE(CheckBytes(damaged).ok()) << bit;
    }
  }
}

// With a CRC-64 that was made to fit, what a snapshot says of itself still finds each flipped bit of its entries,
// modified LSNs and digest. What is free to differ: the head, hints, and the request window.
TEST(RdbCheck, FlippedBitsOfASnapshotBehindItsCrcAreNoticed) {
  const std::string data = TowlineFile(SmallLog(), 1 << 20);
  const size_t begin = data.find("\xfa\x0ctowline-meta");
  const size_t reserved = data.find("\xfa\x10towline-reserved");
  const size_t digest = data.find("\xfa\x0etowline-digest");
  ASSERT_TRUE(begin < reserved && reserved < digest && digest < data.size());
  for (size_t byte = begin; byte < data.size() - 9; ++byte) {
    if (byte >= reserved && byte < digest) continue;
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = data.substr(0, data.size() - 9);
      damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
      ASSERT_FALSE(CheckBytes(WithEof(damaged)).ok()) << byte << " bit " << bit;
    }
  }
}

TEST(RdbCheck, TrailingBytesAreNoticed) {
  const std::string data = WithEof(ForeignBody());
  const auto report = CheckBytes(data + "*2\r\n");
  EXPECT_THAT(report, ReasonIs("rdb_malformed"));
  EXPECT_THAT(report.status().message(), HasSubstr(absl::StrCat("4 bytes behind its end at byte ", data.size())));
}

TEST(RdbCheck, DuplicatesAreFoundWhateverTheirTypes) {
  for (const bool list : {false, true}) {
    std::string stream = ForeignBody();
    const size_t offset = stream.size();
    if (list) {
      AppendList("zebra", &stream);
    } else {
      RdbAppendEntry("zebra", "again", 0, &stream);
    }
    const auto report = CheckBytes(WithEof(stream));
    EXPECT_THAT(report, ReasonIs("rdb_duplicate_key"));
    EXPECT_THAT(report.status().message(), HasSubstr(absl::StrCat("at byte ", offset)));
    EXPECT_THAT(report.status().message(), HasSubstr("key zebra of database 3"));
  }
}

// A snapshot by hand, with the parts that a test makes wrong.
struct Parts {
  std::string meta = std::string("\x04\x02", 2);  // LSN 2, LSN 3
  uint64_t db = 0;
  std::vector<std::string> keys = {"a", "b"};
  std::string digest;
};

std::string ByHand(const Parts& parts) {
  std::string stream(kRdbMagic);
  RdbAppendAux("repl-id", "0123456789abcdef01234567000000000000002a", &stream);
  RdbAppendAux("repl-offset", "3", &stream);
  RdbAppendAux("towline-version", "1", &stream);
  RdbAppendSelectDb(parts.db, &stream);
  RdbAppendAux("towline-meta", parts.meta, &stream);
  Sum128 digest;
  uint64_t lsn = 2;
  for (const std::string& key : parts.keys) {
    RdbAppendEntry(key, "value", 0, &stream);
    digest.Add(EntryDigest(key, "value", 0, lsn++));
  }
  RdbAppendAux("towline-reserved",
               std::string("\x01\x01\x02"
                           "c1\0\0\x01\x05\x04",
                           10),
               &stream);
  RdbAppendAux("towline-digest", parts.digest.empty() ? digest.Hex() : parts.digest, &stream);
  return stream;
}

TEST(RdbCheck, WhatASnapshotSaysOfItselfMustHold) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbReport good, CheckBytes(WithEof(ByHand({}))));
  EXPECT_EQ(good.towline->position.lsn, 3u);
  EXPECT_EQ(good.towline->position.term_id, 42u);

  const auto expect_bad = [](const std::function<void(Parts&)>& change, const std::string& what) {
    Parts parts;
    change(parts);
    const auto report = CheckBytes(WithEof(ByHand(parts)));
    EXPECT_THAT(report, ReasonIs("snapshot_malformed")) << what;
    EXPECT_THAT(report.status().message(), HasSubstr(what));
    EXPECT_THAT(report.status().message(), HasSubstr("at byte "));
  };
  expect_bad([](Parts& parts) { parts.meta = "\x04"; }, "no modified LSN for key b");
  expect_bad([](Parts& parts) { parts.meta = "\x04\x02\x02"; }, "more modified LSNs than entries");
  expect_bad([](Parts& parts) { parts.meta = "\x04\x04"; }, "digest");
  expect_bad([](Parts& parts) { parts.db = 1; }, "database 1");
  expect_bad([](Parts& parts) { parts.keys = {"b", "a"}; }, "key a comes after b");
  expect_bad([](Parts& parts) { parts.keys = {"a", "a"}; }, "key a comes after a");
  expect_bad([](Parts& parts) { parts.keys = {"", "a"}; }, "a key has 0 bytes");
  expect_bad([](Parts& parts) { parts.keys = {"a", std::string(65537, 'k')}; }, "65537 bytes");
  expect_bad([](Parts& parts) { parts.digest = "00"; }, "towline-digest says 00");

  const std::string no_checksum = ByHand({}) + "\xff" + std::string(8, '\0');
  EXPECT_THAT(CheckBytes(no_checksum), ReasonIs("snapshot_malformed"));
  std::string list = ByHand({});
  AppendList("c", &list);
  EXPECT_THAT(CheckBytes(WithEof(list)), ReasonIs("snapshot_malformed"));
  std::string late = "REDIS0009";
  RdbAppendEntry("a", "b", 0, &late);
  RdbAppendAux("towline-version", "1", &late);
  EXPECT_THAT(CheckBytes(WithEof(late)), ReasonIs("snapshot_malformed"));
}

TEST(RdbWalk, ErrorsOfTheVisitorAndOfProgressEndIt) {
  FileInMemory file(WithEof(ForeignBody()));
  uint64_t seen = 0;
  const auto stop_at_list = [&](const RdbEvent& event, const RdbPlace&) {
    ++seen;
    return event.kind == RdbEvent::Kind::kOther && event.number == 1 ? absl::AbortedError("stop") : absl::OkStatus();
  };
  EXPECT_THAT(WalkRdb(file, RdbCheckOptions(), stop_at_list, NoProgress), StatusIs(absl::StatusCode::kAborted));
  EXPECT_EQ(seen, 8u);
  EXPECT_THAT(WalkRdb(file, RdbCheckOptions(), Ignore, [](uint64_t) { return absl::CancelledError("stop"); }),
              StatusIs(absl::StatusCode::kCancelled));
}

TEST(RdbWalk, TellsWhereItemsStand) {
  const std::string data = WithEof(ForeignBody());
  FileInMemory file(data);
  std::map<std::string, RdbPlace> places;
  const auto note = [&](const RdbEvent& event, const RdbPlace& place) {
    if (!event.key.empty()) places[absl::StrCat(event.key, "/", place.db)] = place;
    return absl::OkStatus();
  };
  TOWLINE_ASSERT_OK_AND_ASSIGN(const RdbFileInfo info, WalkRdb(file, RdbCheckOptions(), note, NoProgress));
  EXPECT_EQ(info.bytes, data.size());
  EXPECT_EQ(places.at("redis-ver/0").offset, 9u);
  EXPECT_EQ(places.at("zebra/0").offset, data.find(std::string("\0\5zebra", 7)));
  EXPECT_EQ(places.at("apple/0").offset, data.find("\xfc\x88"));
  EXPECT_EQ(places.at("middle/0").offset, data.find("\1\6middle"));
  EXPECT_EQ(places.at("zebra/3").offset, data.rfind(std::string("\0\5zebra", 7)));
}

TEST(KeyHashSet, KnowsWhatItHasSeen) {
  SeededRng rng(3);
  KeyHashSet set;
  EXPECT_TRUE(set.Add(Sum128{}));
  EXPECT_FALSE(set.Add(Sum128{}));
  std::vector<Sum128> added;
  for (int i = 0; i < 3'000; ++i) {
    // Many hashes with the same low bits, so that they meet.
    added.push_back(Sum128{rng.Below(UINT64_MAX), rng.Below(1000) << 32});
    ASSERT_TRUE(set.Add(added.back()));
  }
  for (const Sum128& hash : added) ASSERT_FALSE(set.Add(hash));
  EXPECT_EQ(set.size(), 3'001u);
}

// --- What may be loaded ---

absl::StatusOr<RdbLoadPlan> PlanFor(const std::string& data, const RdbLoadOptions& options) {
  FileInMemory file(data);
  RdbLoadPlan plan(options);
  const auto visit = [&plan](const RdbEvent& event, const RdbPlace& place) {
    plan.Take(event, place);
    return absl::OkStatus();
  };
  TOWLINE_RETURN_IF_ERROR(CheckRdb(file, visit, NoProgress).status());
  TOWLINE_RETURN_IF_ERROR(plan.Decide());
  return plan;
}

// The keys that the second walk would load.
std::vector<std::string> Loaded(const std::string& data, const RdbLoadPlan& plan) {
  FileInMemory file(data);
  std::vector<std::string> keys;
  const auto visit = [&](const RdbEvent& event, const RdbPlace& place) {
    if (plan.Loads(event, place)) keys.push_back(std::string(event.key));
    return absl::OkStatus();
  };
  EXPECT_THAT(WalkRdb(file, RdbCheckOptions(), visit, NoProgress), IsOk());
  return keys;
}

RdbLoadOptions Options() {
  RdbLoadOptions options;
  options.record_bytes_max = 8 << 20;
  options.now_ms = 4'999;
  return options;
}

TEST(RdbLoadPlan, RefusesSeveralDatabasesAndOtherTypesUntilTold) {
  const std::string data = WithEof(ForeignBody());
  auto plan = PlanFor(data, Options());
  EXPECT_THAT(plan, ReasonIs("not_loadable"));
  EXPECT_THAT(plan.status().message(), HasSubstr("database 0: 2, database 3: 1"));

  RdbLoadOptions options = Options();
  options.db = 0;
  plan = PlanFor(data, options);
  EXPECT_THAT(plan, ReasonIs("not_loadable"));
  EXPECT_THAT(plan.status().message(), HasSubstr("1 function, 1 list"));

  options.skip_other_types = true;
  plan = PlanFor(data, options);
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(Loaded(data, *plan), ElementsAre("zebra", "apple"));
  EXPECT_EQ(plan->counts().keys, 2u);
  EXPECT_EQ(plan->counts().bytes, 15u);
  EXPECT_EQ(plan->keys_elsewhere(), 1u);
  EXPECT_THAT(plan->SkippedTypes(), UnorderedElementsAre(Pair("function", 1), Pair("list", 1)));

  options.db = 3;
  plan = PlanFor(data, options);
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(Loaded(data, *plan), ElementsAre("zebra"));
  EXPECT_THAT(plan->SkippedTypes(), ElementsAre(Pair("function", 1)));

  options.db = 7;
  plan = PlanFor(data, options);
  EXPECT_THAT(plan, ReasonIs("not_loadable"));
  EXPECT_THAT(plan.status().message(), HasSubstr("database 7 holds no keys"));
}

TEST(RdbLoadPlan, TheOnlyDatabaseWithStringsIsTaken) {
  std::string stream = "REDIS0010";
  RdbAppendSelectDb(5, &stream);
  RdbAppendEntry("k", "v", 0, &stream);
  RdbAppendSelectDb(6, &stream);
  AppendList("l", &stream);
  const auto plan = PlanFor(WithEof(stream), Options());
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->db(), 5u);
}

TEST(RdbLoadPlan, ExpiredKeysAreLeftOut) {
  const std::string data = WithEof(ForeignBody());
  RdbLoadOptions options = Options();
  options.skip_other_types = true;
  options.db = 0;
  options.now_ms = 5'000;  // "apple" expires then
  const auto plan = PlanFor(data, options);
  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(Loaded(data, *plan), ElementsAre("zebra"));
  EXPECT_EQ(plan->counts().expired, 1u);
}

TEST(RdbLoadPlan, AnEmptyFileIsLoadable) {
  const auto plan = PlanFor(WithEof("REDIS0009"), Options());
  ASSERT_THAT(plan, IsOk());
  EXPECT_EQ(plan->counts().keys, 0u);
}

TEST(RdbLoadPlan, KeysAndRecordsBeyondTheLimitsAreCounted) {
  std::string stream = "REDIS0010";
  RdbAppendEntry("", "v", 0, &stream);
  RdbAppendEntry(std::string(65536, 'k'), "longest", 0, &stream);
  RdbAppendEntry(std::string(65537, 'k'), "too long", 0, &stream);
  RdbAppendEntry("large", std::string(100'000, 'v'), 0, &stream);
  RdbLoadOptions options = Options();
  options.record_bytes_max = 90'000;
  const auto plan = PlanFor(WithEof(stream), options);
  EXPECT_THAT(plan, ReasonIs("not_loadable"));
  EXPECT_THAT(plan.status().message(), HasSubstr("1 keys have 0 bytes; 1 keys have more than 65536 bytes; 1 records"));
}

TEST(RdbLoadPlan, AValueOfTheLargestRecordIsLoadable) {
  for (const uint64_t size : {1'000u, 70'000u, 3'000'000u}) {
    v1::Change change;
    v1::Put* const put = change.mutable_batch()->add_operations()->mutable_put();
    put->set_key("key");
    put->set_value(std::string(size, 'v'));
    put->set_expire_at_ms(4'000'000'000'000);
    std::string stream = "REDIS0010";
    RdbAppendEntry(put->key(), put->value(), put->expire_at_ms(), &stream);
    RdbLoadOptions options = Options();
    options.record_bytes_max = change.ByteSizeLong();
    EXPECT_THAT(PlanFor(WithEof(stream), options), IsOk()) << size;
    --options.record_bytes_max;
    EXPECT_THAT(PlanFor(WithEof(stream), options), ReasonIs("not_loadable")) << size;
  }
}

TEST(RdbLoadPlan, SizesAreThoseOfProtobuf) {
  SeededRng rng(9);
  for (int i = 0; i < 500; ++i) {
    v1::Change change;
    uint64_t operations = 0;
    for (uint64_t count = 1 + rng.Below(5); count > 0; --count) {
      v1::Put* const put = change.mutable_batch()->add_operations()->mutable_put();
      put->set_key(std::string(1 + rng.Below(300), 'k'));
      put->set_value(std::string(rng.OneIn(5) ? 0 : rng.Below(20'000), 'v'));
      put->set_expire_at_ms(rng.OneIn(2) ? 0 : rng.Below(UINT64_MAX));
      operations += EncodedPutSize(put->key(), put->value(), put->expire_at_ms());
    }
    ASSERT_EQ(EncodedRecordSize(operations), change.ByteSizeLong());
  }
}

}  // namespace
}  // namespace towline::test
