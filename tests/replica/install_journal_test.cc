#include "replica/install_journal.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/format_doc.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

using ::testing::HasSubstr;

constexpr char kDoc[] = "docs/formats/install_v2.md";
constexpr char kGolden[] = "tests/golden/install_v2.hex";

// The record of the document's example.
InstallRecord Example() {
  InstallRecord record;
  record.phase = InstallPhase::kLoading;
  record.incarnation = 0x1122334455667788ull;
  record.snapshot_id = 0x99aabbccddeeff01ull;
  record.reason = "wal_removed";
  record.read = {2, 0xa2, 620, 0xc620};
  record.common_lsn = 90;
  record.estimated_bytes = 5'000'000;
  record.started_unix_ms = 1'700'000'005'000;
  record.resumes = 2;
  record.received_bytes = 3'400'000;
  SnapshotMeta& meta = record.point.meta;
  meta.cluster_id = "0123456789abcdef01234567";
  meta.node_id = "p1";
  meta.position = {2, 0xa2, 500, 0xc500};
  meta.history = {{1, 1, 0xa1}, {2, 300, 0xa2}};
  meta.created_unix_s = 1'700'000'000;
  meta.estimated_keys = 40'000;
  SnapshotCursor& cursor = record.point.cursor;
  cursor.sequence = 3;
  cursor.last_key = "user:21000";
  cursor.keys = 21'000;
  cursor.bytes = 3'145'800;
  cursor.crc64 = 0xe9c6d914c4b8d9caull;
  cursor.digest.low = 0xd1d1d1d1d1d1d1d1ull;
  cursor.digest.high = 0xd2d2d2d2d2d2d2d2ull;
  record.point.indexed_key = "user:1";
  return record;
}

// Before the first chunk, from a source whose log is empty.
InstallRecord Smallest() {
  InstallRecord record;
  record.incarnation = 1;
  record.snapshot_id = 1;
  record.point.meta.cluster_id = std::string(24, '0');
  return record;
}

TEST(InstallFormatTest, DocumentAndCodeAgree) {
  const auto constants = FormatConstants(kDoc);
  EXPECT_EQ(constants.at("magic"), kInstallMagic);
  EXPECT_EQ(constants.at("format version"), kInstallVersion);
  EXPECT_EQ(constants.at("capacity"), kInstallCapacity);
  EXPECT_EQ(constants.at("longest key"), kKeySizeMax);
  EXPECT_EQ(constants.at("fixed part") + 5 * 4 + 24, EncodeInstall(Smallest()).size());
  InstallRecord record = Smallest();
  record.point.meta.history = {{1, 1, 1}};
  EXPECT_EQ(EncodeInstall(record).size(), EncodeInstall(Smallest()).size() + constants.at("history entry"));
}

// Changes one field at a time and looks where the bytes change.
TEST(InstallFormatTest, FixedFieldsLieWhereTheDocumentSays) {
  using R = InstallRecord;
  const auto fields = FormatFields(kDoc);
  const std::vector<std::pair<std::string, std::function<void(R&)>>> changes = {
      {"phase", [](R& r) { r.phase = static_cast<InstallPhase>(~static_cast<uint8_t>(r.phase)); }},
      {"form", [](R& r) { r.form = static_cast<SnapshotForm>(~static_cast<uint8_t>(r.form)); }},
      {"incarnation", [](R& r) { r.incarnation = ~r.incarnation; }},
      {"snapshot_id", [](R& r) { r.snapshot_id = ~r.snapshot_id; }},
      {"common_lsn", [](R& r) { r.common_lsn = ~r.common_lsn; }},
      {"estimated_bytes", [](R& r) { r.estimated_bytes = ~r.estimated_bytes; }},
      {"estimated_keys", [](R& r) { r.point.meta.estimated_keys = ~r.point.meta.estimated_keys; }},
      {"created", [](R& r) { r.point.meta.created_unix_s = ~r.point.meta.created_unix_s; }},
      {"started", [](R& r) { r.started_unix_ms = ~r.started_unix_ms; }},
      {"resumes", [](R& r) { r.resumes = ~r.resumes; }},
      {"received_bytes", [](R& r) { r.received_bytes = ~r.received_bytes; }},
      {"cursor: sequence", [](R& r) { r.point.cursor.sequence = ~r.point.cursor.sequence; }},
      {"cursor: keys", [](R& r) { r.point.cursor.keys = ~r.point.cursor.keys; }},
      {"cursor: bytes", [](R& r) { r.point.cursor.bytes = ~r.point.cursor.bytes; }},
      {"cursor: crc64", [](R& r) { r.point.cursor.crc64 = ~r.point.cursor.crc64; }},
      {"cursor: digest, low", [](R& r) { r.point.cursor.digest.low = ~r.point.cursor.digest.low; }},
      {"cursor: digest, high", [](R& r) { r.point.cursor.digest.high = ~r.point.cursor.digest.high; }},
      {"position: term", [](R& r) { r.point.meta.position.term = ~r.point.meta.position.term; }},
      {"position: term_id", [](R& r) { r.point.meta.position.term_id = ~r.point.meta.position.term_id; }},
      {"position: lsn", [](R& r) { r.point.meta.position.lsn = ~r.point.meta.position.lsn; }},
      {"position: chain", [](R& r) { r.point.meta.position.chain = ~r.point.meta.position.chain; }},
      {"read: term", [](R& r) { r.read.term = ~r.read.term; }},
      {"read: term_id", [](R& r) { r.read.term_id = ~r.read.term_id; }},
      {"read: lsn", [](R& r) { r.read.lsn = ~r.read.lsn; }},
      {"read: chain", [](R& r) { r.read.chain = ~r.read.chain; }},
  };
  const std::string before = EncodeInstall(Example());
  for (const auto& [name, change] : changes) {
    R record = Example();
    change(record);
    const std::string after = EncodeInstall(record);
    ASSERT_EQ(after.size(), before.size());
    const FormatField field = fields.at(name);
    for (size_t i = 0; i < before.size(); ++i) {
      const bool inside = i >= field.offset && i < field.offset + field.size;
      ASSERT_EQ(before[i] != after[i], inside) << name << ", byte " << i;
    }
  }
  EXPECT_EQ(fields.at("history count"), (FormatField{4, 4}));
  EXPECT_EQ(before[4], 2);
}

TEST(InstallFormatTest, GoldenBytesAreThoseOfTheDocumentAndTheCode) {
  EXPECT_EQ(FormatExample(kDoc), ReadGolden(kGolden));
  EXPECT_EQ(ReadGolden(kGolden).substr(kTwoCopyHeaderSize), EncodeInstall(Example()));
  SimFileSystem fs;
  fs.SetContents("d/install.b", ReadGolden(kGolden));
  EXPECT_THAT(InstallJournal(fs, "d").Load(), IsOkAndHolds(Example()));
}

TEST(InstallFormatTest, EveryRecordComesBackWhole) {
  EXPECT_THAT(DecodeInstall(kInstallVersion, EncodeInstall(Example())), IsOkAndHolds(Example()));
  EXPECT_THAT(DecodeInstall(kInstallVersion, EncodeInstall(Smallest())), IsOkAndHolds(Smallest()));
  InstallRecord large = Example();
  large.phase = InstallPhase::kReplaying;
  large.point.cursor.last_key = std::string(kKeySizeMax, '\xff');
  large.point.indexed_key = std::string("\0\n", 2);
  for (Term term = 3; term < 3000; ++term) large.point.meta.history.push_back({term, 300 + term, term});
  EXPECT_THAT(DecodeInstall(kInstallVersion, EncodeInstall(large)), IsOkAndHolds(large));
}

TEST(InstallFormatTest, AnotherVersionIsRefusedByNumber) {
  const auto result = DecodeInstall(3, EncodeInstall(Example()));
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(result, ReasonIs("install_version"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("format version 3"));
}

TEST(InstallFormatTest, TheVersionBeforeIsReadAndHadOneForm) {
  EXPECT_THAT(DecodeInstall(1, EncodeInstall(Example())), IsOkAndHolds(Example()));
  InstallRecord files = Example();
  files.form = SnapshotForm::kFiles;
  EXPECT_THAT(DecodeInstall(2, EncodeInstall(files)), IsOkAndHolds(files));
  EXPECT_THAT(DecodeInstall(1, EncodeInstall(files)), ReasonIs("install_damaged"));
  files.form = static_cast<SnapshotForm>(2);
  EXPECT_THAT(DecodeInstall(2, EncodeInstall(files)), ReasonIs("install_damaged"));
}

TEST(InstallFormatTest, EveryCutAndEveryTailIsRefused) {
  const std::string whole = EncodeInstall(Example());
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_THAT(DecodeInstall(kInstallVersion, whole.substr(0, size)), ReasonIs("install_damaged")) << size;
  }
  EXPECT_THAT(DecodeInstall(kInstallVersion, whole + std::string(1, '\0')), ReasonIs("install_damaged"));
}

TEST(InstallFormatTest, AnyBytesAreDecodedOrRefusedWithoutHarm) {
  SeededRng rng(1);
  const std::string whole = EncodeInstall(Example());
  for (int i = 0; i < 40000; ++i) {
    std::string bytes = whole;
    if (i % 4 == 0) bytes.assign(rng.Below(400), '\0');  // nothing but noise
    const uint64_t changes = i % 4 == 0 ? bytes.size() : 1 + rng.Below(4);
    for (uint64_t n = bytes.empty() ? 0 : changes; n > 0; --n) {
      bytes[rng.Below(bytes.size())] = static_cast<char>(rng.Next());
    }
    const auto decoded = DecodeInstall(kInstallVersion, bytes);
    if (decoded.ok()) {
      ASSERT_EQ(EncodeInstall(*decoded), bytes);
    } else {
      ASSERT_THAT(decoded, ReasonIs("install_damaged"));
    }
  }
}

TEST(InstallFormatTest, WhatNoJournalMayHoldIsNotRead) {
  using R = InstallRecord;
  const std::vector<std::pair<const char*, std::function<void(R&)>>> faults = {
      {"phase 0", [](R& r) { r.phase = static_cast<InstallPhase>(0); }},
      {"phase 3", [](R& r) { r.phase = static_cast<InstallPhase>(3); }},
      {"form", [](R& r) { r.form = static_cast<SnapshotForm>(~static_cast<uint8_t>(r.form)); }},
      {"incarnation", [](R& r) { r.incarnation = 0; }},
      {"snapshot_id", [](R& r) { r.snapshot_id = 0; }},
      {"cluster_id", [](R& r) { r.point.meta.cluster_id.pop_back(); }},
      {"falling history", [](R& r) { r.point.meta.history[1].start_lsn = 1; }},
      {"term_id 0", [](R& r) { r.point.meta.history[0].term_id = 0; }},
      {"read before position", [](R& r) { r.read.lsn = 499; }},
      {"key without chunk", [](R& r) { r.point.cursor.sequence = 0; }},
      {"chunk without key", [](R& r) { r.point.cursor.last_key = ""; }},
      {"long key", [](R& r) { r.point.cursor.last_key = std::string(kKeySizeMax + 1, 'x'); }},
      {"indexed behind the cursor", [](R& r) { r.point.indexed_key = "user:21001"; }},
  };
  for (const auto& [name, fault] : faults) {
    R record = Example();
    fault(record);
    EXPECT_THAT(DecodeInstall(kInstallVersion, EncodeInstall(record)), ReasonIs("install_damaged")) << name;
  }
  std::string bytes = EncodeInstall(Example());
  for (const size_t reserved : {2, 3}) {
    bytes[reserved] = 1;
    EXPECT_THAT(DecodeInstall(kInstallVersion, bytes), ReasonIs("install_damaged")) << reserved;
    bytes[reserved] = 0;
  }
}

class InstallJournalTest : public ::testing::Test {
 protected:
  InstallJournalTest() {
    EXPECT_THAT(fs_.CreateDirectory("d"), IsOk());
    EXPECT_THAT(fs_.SyncDirectory("/"), IsOk());
  }

  absl::StatusOr<InstallRecord> Load(SimFileSystem& fs) { return InstallJournal(fs, "d").Load(); }

  SimFileSystem fs_;
};

TEST_F(InstallJournalTest, KeepsTheLatestRecordAcrossOpens) {
  EXPECT_THAT(Load(fs_), StatusIs(absl::StatusCode::kNotFound));
  InstallJournal journal(fs_, "d");
  ASSERT_THAT(journal.Save(Smallest()), IsOk());
  ASSERT_THAT(journal.Save(Example()), IsOk());
  EXPECT_THAT(Load(fs_), IsOkAndHolds(Example()));
  EXPECT_EQ(fs_.Contents("d/install.a").size(), kInstallCapacity);
}

// Of three saves one copy holds the last, the other the one before.
TEST_F(InstallJournalTest, DamageOfOneCopyIsSurvived) {
  InstallJournal journal(fs_, "d");
  InstallRecord before = Example();
  before.point.cursor.sequence = 2;
  ASSERT_THAT(journal.Save(Smallest()), IsOk());
  ASSERT_THAT(journal.Save(before), IsOk());
  ASSERT_THAT(journal.Save(Example()), IsOk());
  int last = 0;
  for (const char* path : {"d/install.a", "d/install.b"}) {
    const std::string kept = fs_.Contents(path);
    for (size_t bit = 0; bit < (kTwoCopyHeaderSize + EncodeInstall(Example()).size()) * 8; bit += 3) {
      fs_.FlipBit(path, bit);
      const auto loaded = Load(fs_);
      ASSERT_THAT(loaded, IsOk()) << path << " bit " << bit;
      ASSERT_TRUE(*loaded == Example() || *loaded == before) << path << " bit " << bit;
      last += *loaded == Example() ? 1 : 0;
      fs_.SetContents(path, kept);
    }
    for (size_t size = 0; size < kept.size(); size += size < 500 ? 1 : 1000) {
      fs_.SetContents(path, kept.substr(0, size));
      ASSERT_THAT(Load(fs_), IsOk()) << path << " cut at " << size;
    }
    fs_.SetContents(path, kept);
  }
  EXPECT_GT(last, 0);
}

TEST_F(InstallJournalTest, DamageOfBothCopiesIsAnErrorThatChangesNothing) {
  ASSERT_THAT(InstallJournal(fs_, "d").Save(Example()), IsOk());
  fs_.FlipBit("d/install.a", 1);
  fs_.FlipBit("d/install.b", 300);
  const auto before = fs_.AllContents();
  EXPECT_THAT(Load(fs_), ReasonIs("install_damaged"));
  EXPECT_EQ(fs_.AllContents(), before);
}

// What Load returned is what every later power loss leaves, or something newer.
TEST_F(InstallJournalTest, APowerLossAtAnyCallLeavesTheRecordBeforeOrTheOneSaved) {
  InstallJournal journal(fs_, "d");
  ASSERT_THAT(journal.Save(Smallest()), IsOk());
  int states = 0;
  fs_.SetAfterCall([&] {
    ForEachCrashState(fs_, 8, [&](SimFileSystem& crashed) {
      ++states;
      const auto loaded = Load(crashed);
      ASSERT_THAT(loaded, IsOk());
      ASSERT_TRUE(*loaded == Smallest() || *loaded == Example());
    });
  });
  ASSERT_THAT(journal.Save(Example()), IsOk());
  fs_.SetAfterCall(nullptr);
  EXPECT_GT(states, 8);
  fs_.Reopen();  // killed
  EXPECT_THAT(Load(fs_), IsOkAndHolds(Example()));
  ForEachCrashState(fs_, 8, [&](SimFileSystem& crashed) { EXPECT_THAT(Load(crashed), IsOkAndHolds(Example())); });
}

}  // namespace
}  // namespace towline::test
