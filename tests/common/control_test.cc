#include "common/control.h"

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

#include "gtest/gtest.h"
#include "tests/support/format_doc.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline {
namespace {

using test::FormatField;
using test::IsOk;
using test::IsOkAndHolds;
using test::ReasonIs;
using test::SimFileSystem;
using test::StatusIs;
using ::testing::ElementsAre;

constexpr char kDoc[] = "docs/formats/control_v2.md";
constexpr char kGolden[] = "tests/golden/control_v2.hex";

// The control of the document's example.
Control Example() {
  Control control;
  control.cluster_id = "0123456789abcdef01234567";
  control.node_id = "r1";
  control.incarnation = 0x1122334455667788ull;
  control.role = NodeRole::kPrimary;
  control.promised_term = 3;
  control.promised_candidate = "p1";
  control.history = {{1, 1, 0xa1}, {2, 300, 0xa2}};
  control.members.members = {{"p1", 0x99, "", false}, {"r1", 0x1122334455667788ull, "db:7701", true}};
  control.members.min_replicas = 1;
  control.generation = 2;
  control.base = {1, 0xa1, 100, 0xc100};
  control.exact_from = {1, 0xa1, 120, 0xc120};
  control.watermark = 500;
  control.recovery = RecoveryState::kRecoveryRequired;
  control.recovery_reason = "lost";
  control.term_primary = "p1";
  return control;
}

// A replica before its first attach: as little as a control may hold.
Control Smallest() {
  Control control;
  control.node_id = "r";
  control.incarnation = 1;
  control.role = NodeRole::kReplica;
  return control;
}

TEST(ControlFormatTest, DocumentAndCodeAgree) {
  const auto constants = test::FormatConstants(kDoc);
  EXPECT_EQ(constants.at("magic"), kControlMagic);
  EXPECT_EQ(constants.at("format version"), kControlVersion);
  EXPECT_EQ(constants.at("capacity"), kControlCapacity);

  // The smallest control is the fixed part, five texts, and one byte of node_id.
  EXPECT_EQ(constants.at("fixed part") + 5 * 4 + 1, EncodeControl(Smallest()).size());
  Control control = Smallest();
  control.history = {{1, 1, 1}};
  EXPECT_EQ(EncodeControl(control).size(), EncodeControl(Smallest()).size() + constants.at("history entry"));
  control = Smallest();
  control.members.members = {{"", 1, "", false}};
  EXPECT_EQ(EncodeControl(control).size(), EncodeControl(Smallest()).size() + constants.at("smallest member"));
}

// Changes one field at a time and looks where the bytes change.
TEST(ControlFormatTest, FixedFieldsLieWhereTheDocumentSays) {
  const auto fields = test::FormatFields(kDoc);
  const std::vector<std::pair<std::string, std::function<void(Control&)>>> changes = {
      {"incarnation", [](Control& c) { c.incarnation = ~c.incarnation; }},
      {"generation", [](Control& c) { c.generation = ~c.generation; }},
      {"watermark", [](Control& c) { c.watermark = ~c.watermark; }},
      {"base: term_id", [](Control& c) { c.base.term_id = ~c.base.term_id; }},
      {"base: lsn", [](Control& c) { c.base.lsn = ~c.base.lsn; }},
      {"base: chain", [](Control& c) { c.base.chain = ~c.base.chain; }},
      {"exact_from: term_id", [](Control& c) { c.exact_from.term_id = ~c.exact_from.term_id; }},
      {"exact_from: lsn", [](Control& c) { c.exact_from.lsn = ~c.exact_from.lsn; }},
      {"exact_from: chain", [](Control& c) { c.exact_from.chain = ~c.exact_from.chain; }},
      {"base: term", [](Control& c) { c.base.term = ~c.base.term; }},
      {"exact_from: term", [](Control& c) { c.exact_from.term = ~c.exact_from.term; }},
      {"promised term", [](Control& c) { c.promised_term = ~c.promised_term; }},
      {"min_replicas", [](Control& c) { c.members.min_replicas = ~c.members.min_replicas; }},
      {"role", [](Control& c) { c.role = static_cast<NodeRole>(~static_cast<uint8_t>(c.role)); }},
      {"recovery state",
       [](Control& c) { c.recovery = static_cast<RecoveryState>(~static_cast<uint8_t>(c.recovery)); }},
  };
  const std::string before = EncodeControl(Example());
  for (const auto& [name, change] : changes) {
    Control control = Example();
    change(control);
    const std::string after = EncodeControl(control);
    ASSERT_EQ(after.size(), before.size());
    const FormatField field = fields.at(name);
    for (size_t i = 0; i < before.size(); ++i) {
      const bool inside = i >= field.offset && i < field.offset + field.size;
      ASSERT_EQ(before[i] != after[i], inside) << name << ", byte " << i;
    }
  }
  EXPECT_EQ(fields.at("history count"), (FormatField{92, 4}));
  EXPECT_EQ(before[fields.at("history count").offset], 2);
  EXPECT_EQ(before[fields.at("member count").offset], 2);
}

TEST(ControlFormatTest, GoldenBytesAreThoseOfTheDocumentAndTheCode) {
  EXPECT_EQ(test::FormatExample(kDoc), test::ReadGolden(kGolden));
  EXPECT_EQ(test::ReadGolden(kGolden).substr(kTwoCopyHeaderSize), EncodeControl(Example()));

  SimFileSystem fs;
  fs.SetContents("d/control.b", test::ReadGolden(kGolden));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto file, ControlFile::Open(fs, "d"));
  ASSERT_TRUE(file->exists());
  EXPECT_EQ(file->Get(), Example());
}

TEST(ControlFormatTest, EveryControlComesBackWhole) {
  EXPECT_THAT(DecodeControl(kControlVersion, EncodeControl(Example())), IsOkAndHolds(Example()));
  EXPECT_THAT(DecodeControl(kControlVersion, EncodeControl(Smallest())), IsOkAndHolds(Smallest()));
  Control large = Example();
  for (Term term = 3; term < 3000; ++term) large.history.push_back({term, 300 + term, term});
  large.members.members.clear();
  for (int i = 1000; i < 1400; ++i) large.members.members.push_back({absl::StrCat("n", i), 7, "host:7700", true});
  EXPECT_THAT(DecodeControl(kControlVersion, EncodeControl(large)), IsOkAndHolds(large));
}

TEST(ControlFormatTest, VersionOneIsReadWithoutATermPrimary) {
  SimFileSystem fs;
  fs.SetContents("d/control.a", test::ReadGolden("tests/golden/control_v1.hex"));
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto file, ControlFile::Open(fs, "d"));
  Control expected = Example();
  expected.term_primary.clear();
  EXPECT_EQ(file->Get(), expected);
}

TEST(ControlFormatTest, AnotherVersionIsRefusedByNumber) {
  const auto result = DecodeControl(3, EncodeControl(Example()));
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(result, ReasonIs("control_version"));
  EXPECT_THAT(std::string(result.status().message()), ::testing::HasSubstr("format version 3"));
}

TEST(ControlFormatTest, EveryCutAndEveryTailIsRefused) {
  const std::string whole = EncodeControl(Example());
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_THAT(DecodeControl(kControlVersion, whole.substr(0, size)), ReasonIs("control_damaged")) << size;
  }
  EXPECT_THAT(DecodeControl(kControlVersion, whole + std::string(1, '\0')), ReasonIs("control_damaged"));
}

TEST(ControlFormatTest, AnyBytesAreDecodedOrRefusedWithoutHarm) {
  test::SeededRng rng(1);
  const std::string whole = EncodeControl(Example());
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = whole;
    for (uint64_t n = 1 + rng.Below(4); n > 0; --n) bytes[rng.Below(bytes.size())] = static_cast<char>(rng.Next());
    const auto decoded = DecodeControl(kControlVersion, bytes);
    if (decoded.ok()) {
      ASSERT_EQ(EncodeControl(*decoded), bytes);
    } else {
      ASSERT_THAT(decoded, ReasonIs("control_damaged"));
    }
  }
}

TEST(ControlFormatTest, WhatNoControlMayHoldIsNeitherReadNorWritten) {
  const std::vector<std::pair<const char*, std::function<void(Control&)>>> faults = {
      {"short cluster_id", [](Control& c) { c.cluster_id = "0123"; }},
      {"upper-case cluster_id", [](Control& c) { c.cluster_id[11] = 'B'; }},
      {"no node_id", [](Control& c) { c.node_id = ""; }},
      {"node_id", [](Control& c) { c.node_id = "../r1"; }},
      {"incarnation", [](Control& c) { c.incarnation = 0; }},
      {"role 0", [](Control& c) { c.role = static_cast<NodeRole>(0); }},
      {"role 3", [](Control& c) { c.role = static_cast<NodeRole>(3); }},
      {"recovery", [](Control& c) { c.recovery = static_cast<RecoveryState>(2); }},
      {"long reason", [](Control& c) { c.recovery_reason = std::string(1025, 'x'); }},
      {"candidate", [](Control& c) { c.promised_candidate = "P1"; }},
      {"candidate without term", [](Control& c) { c.promised_term = 0; }},
      {"falling history", [](Control& c) { c.history[1].start_lsn = 1; }},
      {"term_id 0", [](Control& c) { c.history[0].term_id = 0; }},
      {"members out of order", [](Control& c) { std::swap(c.members.members[0], c.members.members[1]); }},
      {"member twice", [](Control& c) { c.members.members[1].node_id = "p1"; }},
      {"member name", [](Control& c) { c.members.members[0].node_id = "P"; }},
      {"member incarnation", [](Control& c) { c.members.members[0].incarnation = 0; }},
      {"member address", [](Control& c) { c.members.members[0].address = std::string(1025, 'x'); }},
      {"base without term", [](Control& c) { c.base.term = 0; }},
      {"base without lsn", [](Control& c) { c.base.lsn = 0; }},
      {"exact_from without term_id", [](Control& c) { c.exact_from.term_id = 0; }},
      {"exact_from before base", [](Control& c) { c.exact_from.lsn = 99; }},
  };
  SimFileSystem fs;
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  TOWLINE_ASSERT_OK_AND_ASSIGN(const auto file, ControlFile::Open(fs, "d"));
  fs.ClearLog();
  for (const auto& [name, fault] : faults) {
    Control control = Example();
    fault(control);
    EXPECT_THAT(DecodeControl(kControlVersion, EncodeControl(control)), ReasonIs("control_damaged")) << name;
    EXPECT_THAT(file->Set(control, true), ReasonIs("control_invalid")) << name;
  }
  EXPECT_THAT(fs.log(), ElementsAre());
  EXPECT_FALSE(file->exists());
}

class ControlFileTest : public ::testing::Test {
 protected:
  ControlFileTest() {
    EXPECT_THAT(fs_.CreateDirectory("d"), IsOk());
    EXPECT_THAT(fs_.SyncDirectory("/"), IsOk());
  }

  std::unique_ptr<ControlFile> Open() {
    auto file = ControlFile::Open(fs_, "d");
    EXPECT_THAT(file, IsOk());
    return *std::move(file);
  }

  SimFileSystem fs_;
};

TEST_F(ControlFileTest, KeepsWhatWasSetAcrossOpens) {
  {
    const auto file = Open();
    EXPECT_FALSE(file->exists());
    ASSERT_THAT(file->Set(Example(), true), IsOk());
    EXPECT_TRUE(file->exists());
    ASSERT_THAT(file->Update(false, [](Control& c) { c.watermark = 600; }), IsOk());
    EXPECT_EQ(file->Get().watermark, 600u);
  }
  Control expected = Example();
  expected.watermark = 600;
  EXPECT_EQ(Open()->Get(), expected);
  EXPECT_EQ(fs_.Contents("d/control.a").size(), kControlCapacity);
}

TEST_F(ControlFileTest, FailedSaveKeepsTheOldValueInMemory) {
  const auto file = Open();
  ASSERT_THAT(file->Set(Example(), true), IsOk());
  fs_.FailNext(test::SimCall::kSync, absl::DataLossError("EIO"));
  EXPECT_THAT(file->Update(true, [](Control& c) { c.watermark = 600; }), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(file->Get(), Example());
}

TEST_F(ControlFileTest, BothCopiesDamagedIsAnErrorThatChangesNothing) {
  ASSERT_THAT(Open()->Set(Example(), true), IsOk());
  fs_.FlipBit("d/control.a", 1);
  fs_.FlipBit("d/control.b", 1);
  const auto before = fs_.AllContents();
  const auto file = ControlFile::Open(fs_, "d");
  EXPECT_THAT(file, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(file, ReasonIs("control_damaged"));
  EXPECT_EQ(fs_.AllContents(), before);
}

TEST_F(ControlFileTest, WhatWasSetInBothCopiesSurvivesTheLossOfEither) {
  const auto file = Open();
  ASSERT_THAT(file->Set(Smallest(), false), IsOk());
  ASSERT_THAT(file->Set(Example(), true), IsOk());
  for (const char* path : {"d/control.a", "d/control.b"}) {
    const std::string kept = fs_.Contents(path);
    fs_.SetContents(path, "");
    EXPECT_EQ(Open()->Get(), Example());
    fs_.SetContents(path, kept);
  }
}

TEST_F(ControlFileTest, ASettledControlSurvivesPowerLossAfterAKill) {
  ASSERT_THAT(Open()->Set(Smallest(), true), IsOk());
  {
    const auto file = Open();
    ASSERT_THAT(file->Settle(), IsOk());
    // Killed between write and sync.
    fs_.FailCall(fs_.calls() + 3, absl::AbortedError("killed"), true);
    EXPECT_THAT(file->Set(Example(), false), StatusIs(absl::StatusCode::kAborted));
    fs_.ClearFailures();
  }
  fs_.Reopen();
  const auto file = Open();
  const Control loaded = file->Get();
  ASSERT_THAT(file->Settle(), IsOk());
  test::ForEachCrashState(fs_, 20, [&](SimFileSystem& crashed) {
    const auto again = ControlFile::Open(crashed, "d");
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ((*again)->Get(), loaded);
  });
}

TEST_F(ControlFileTest, UpdatesFromManyThreadsAreAllKept) {
  const auto file = Open();
  ASSERT_THAT(file->Set(Example(), true), IsOk());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 50; ++n) EXPECT_THAT(file->Update(false, [](Control& c) { ++c.watermark; }), IsOk());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(file->Get().watermark, 500u + 200);
  EXPECT_EQ(Open()->Get().watermark, 500u + 200);
}

}  // namespace
}  // namespace towline
