// The bytes of the state, the digest and the snapshot stream against their documents and golden files.

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "store/memory_store.h"
#include "store/rdb_format.h"
#include "store/request_window.h"
#include "store/snapshot_codec.h"
#include "store/state_format.h"
#include "tests/store/state_test_util.h"
#include "tests/support/format_doc.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr char kStateDocument[] = "docs/formats/state_v1.md";
constexpr char kDigestDocument[] = "docs/formats/digest_v1.md";
constexpr char kRdbDocument[] = "docs/formats/rdb_v9.md";

// The example of all three documents: three records.
class FormatTest : public ::testing::Test {
 protected:
  FormatTest() {
    log_.Append(TermStartPayload());
    log_.Append(ChangeBuilder().Put("a", "one").Request("c1", 5).Encode());
    log_.Append(ChangeBuilder().Put("bb", "two", 1'700'000'000'000).Encode());
    state_ = *StateStore::Open(*factory_.Open("db"));
    EXPECT_THAT(ApplyRest(*state_, log_), IsOk());
  }

  TestLog log_;
  MemoryStoreFactory factory_;
  std::unique_ptr<StateStore> state_;
};

// Every engine key and its value, each behind its length as one byte.
TEST_F(FormatTest, TheStateIsTheGoldenOne) {
  std::string dump;
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
  const auto it = snapshot->raw().NewIterator("", "", false);
  for (; it->Valid(); it->Next()) {
    dump.push_back(static_cast<char>(it->key().size()));
    dump.append(it->key().data(), it->key().size());
    dump.push_back(static_cast<char>(it->value().size()));
    dump.append(it->value().data(), it->value().size());
  }
  EXPECT_EQ(absl::BytesToHexString(dump), absl::BytesToHexString(ReadGolden("tests/golden/state_v1.hex")));
  EXPECT_EQ(FormatExample(kStateDocument), ReadGolden("tests/golden/state_v1.hex"));
}

TEST_F(FormatTest, TheReservedKeysAreTheGoldenOnes) {
  auto batch = state_->store().NewBatch();
  std::string floor;
  ByteWriter writer(&floor);
  writer.U64(300);
  writer.U64(2);
  batch->Put(FloorKey("c0"), floor);
  ASSERT_THAT(state_->store().Write(std::move(batch)), IsOk());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::string reserved, snapshot->EncodeReserved());
  EXPECT_EQ(absl::BytesToHexString(reserved), absl::BytesToHexString(ReadGolden("tests/golden/state_reserved_v1.hex")));

  std::map<std::string, std::string> decoded;
  ASSERT_THAT(DecodeRequestWindow(reserved,
                                  [&](absl::string_view key, absl::string_view value) {
                                    decoded[std::string(key)] = std::string(value);
                                    return absl::OkStatus();
                                  }),
              IsOk());
  std::map<std::string, std::string> expected;
  for (const char* space : {"f", "q", "r"}) {
    const auto it = snapshot->raw().NewIterator(space, std::string(1, static_cast<char>(space[0] + 1)), false);
    for (; it->Valid(); it->Next()) expected[std::string(it->key())] = std::string(it->value());
  }
  EXPECT_EQ(decoded, expected);
}

TEST(ReservedFormat, EveryDamageThatCanBeSeenIsRefused) {
  const std::string whole = ReadGolden("tests/golden/state_reserved_v1.hex");
  const auto decode = [](absl::string_view bytes) {
    return DecodeRequestWindow(bytes, [](absl::string_view, absl::string_view) { return absl::OkStatus(); });
  };
  ASSERT_THAT(decode(whole), IsOk());
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_FALSE(decode(whole.substr(0, size)).ok()) << size;
  EXPECT_THAT(decode(whole + "x"), ReasonIs("reserved_malformed"));
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    decode(damaged).IgnoreError();  // no checksum of its own: the chunk has one; it must only not crash
  }
  EXPECT_THAT(decode("\x02"), ReasonIs("reserved_malformed"));
}

TEST_F(FormatTest, TheDigestIsTheGoldenOne) {
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const StateDigest digest, snapshot->Digest());
  const std::string document = ReadSourceFile(kDigestDocument);
  EXPECT_NE(document.find(absl::StrCat("`", digest.sum.Hex(), "`")), std::string::npos) << digest.sum.Hex();
  EXPECT_NE(document.find(absl::StrCat("`", EntryDigest("a", "one", 0, 2).Hex(), "`")), std::string::npos)
      << EntryDigest("a", "one", 0, 2).Hex();
  EXPECT_NE(document.find(absl::StrCat("`", EntryDigest("bb", "two", 1'700'000'000'000, 3).Hex(), "`")),
            std::string::npos)
      << EntryDigest("bb", "two", 1'700'000'000'000, 3).Hex();
  EXPECT_EQ(EntryDigest("bb", "two", 1'700'000'000'000, 3), Xxh3_128(FormatExample(kDigestDocument)));
}

TEST(DigestFormat, LongEntriesAreHashedAsShortOnesAre) {
  for (const size_t size : {900, 1003, 1004, 1005, 5000}) {
    std::string bytes;
    ByteWriter writer(&bytes);
    writer.U32(static_cast<uint32_t>(size));
    writer.U64(7);
    writer.U64(9);
    writer.Bytes(std::string(size, 'k'));
    writer.Bytes("value");
    EXPECT_EQ(EntryDigest(std::string(size, 'k'), "value", 7, 9), Xxh3_128(bytes)) << size;
  }
}

TEST_F(FormatTest, TheSnapshotStreamIsTheGoldenOne) {
  SnapshotMeta meta;
  meta.cluster_id = "0123456789abcdef01234567";
  meta.node_id = "p1";
  meta.history = {{1, 1, 42}};
  meta.created_unix_s = 1'700'000'000;
  meta.estimated_keys = 2;
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto snapshot, state_->Snapshot());
  SnapshotEncoder encoder(snapshot, meta);
  // Head and entries, then the rest.
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto first, encoder.Next());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto second, encoder.Next());
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(second->keys, 0u);
  EXPECT_THAT(encoder.Next(), IsOkAndHolds(testing::Eq(std::nullopt)));
  EXPECT_EQ(absl::BytesToHexString(first->data + second->data), absl::BytesToHexString(ReadGolden("tests/golden/rdb_v9.hex")));
  EXPECT_EQ(FormatExample(kRdbDocument), ReadGolden("tests/golden/rdb_v9.hex"));
}

TEST(FormatDocuments, TheirConstantsAreThoseOfTheCode) {
  const auto state = FormatConstants(kStateDocument);
  EXPECT_EQ(state.at("envelope tag without expiry"), kEnvelopeVersion);
  EXPECT_EQ(state.at("envelope tag with expiry"), kEnvelopeVersion | kEnvelopeHasExpiry);
  EXPECT_EQ(state.at("position version"), kPositionVersion);
  EXPECT_EQ(state.at("position size"), kPositionValueSize);
  EXPECT_EQ(state.at("request window"), kRequestWindow);
  EXPECT_EQ(state.at("eviction interval"), kRequestEvictionInterval);
  EXPECT_EQ(state.at("floor sweep interval"), kFloorSweepInterval);
  EXPECT_EQ(state.at("floor distance"), kFloorDistance);
  EXPECT_EQ(state.at("largest key"), kKeySizeMax);
  EXPECT_EQ(state.at("floor space"), static_cast<uint64_t>(kFloorSpace));
  EXPECT_EQ(state.at("position space"), static_cast<uint64_t>(kPositionSpace));
  EXPECT_EQ(state.at("request space"), static_cast<uint64_t>(kRequestSpace));
  EXPECT_EQ(state.at("request LSN space"), static_cast<uint64_t>(kRequestLsnSpace));
  EXPECT_EQ(state.at("user space"), static_cast<uint64_t>(kUserSpace));
  EXPECT_EQ(state.at("expiry space"), static_cast<uint64_t>(kExpirySpace));

  const auto rdb = FormatConstants(kRdbDocument);
  EXPECT_EQ(rdb.at("AUX opcode"), kRdbAux);
  EXPECT_EQ(rdb.at("RESIZEDB opcode"), kRdbResizeDb);
  EXPECT_EQ(rdb.at("expiry opcode"), kRdbExpireMs);
  EXPECT_EQ(rdb.at("SELECTDB opcode"), kRdbSelectDb);
  EXPECT_EQ(rdb.at("EOF opcode"), kRdbEof);
  EXPECT_EQ(rdb.at("string type"), kRdbString);
  EXPECT_EQ(rdb.at("chunk size"), kSnapshotChunkBytes);
}

}  // namespace
}  // namespace towline::test
