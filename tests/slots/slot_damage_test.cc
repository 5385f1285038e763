// What damage to the files of a slot table leaves of it.
//
// Goal     An earlier image or `unknown`, which holds all log; never a table that has forgotten its slots.
// Method   Two images: sequence n in one copy, the one before it, with less progress, in the other. Every bit is
// flipped
//          and every length tried, in either copy and in both; the files are cut to their images and a little of the
//          fill, so that all of it is tried in a moment.

#include <algorithm>
#include <string>

#include "slots/slot_format.h"
#include "tests/slots/slot_table_fixture.h"

namespace towline::slots {
namespace {

using ::towline::test::IsOk;
using ::towline::test::ReasonIs;
using ::towline::test::SimFileSystem;

constexpr uint64_t kData = 1;
constexpr size_t kFill = 16;  // zeros behind the image

class SlotDamageTest : public SlotTableTest {
 protected:
  void SetUp() override {
    SlotTableTest::SetUp();
    ASSERT_THAT(Create("a", 10), IsOk());
    ASSERT_THAT(Create("b", 20), IsOk());
    older_ = SavedOf(*table_, kData);
    const Session a = Begin("a");
    ASSERT_THAT(table_->Advance(AckOf(a, 15, 15, 15), 15), IsOk());
    ASSERT_THAT(table_->SaveIfDirty(), IsOk());
    newer_ = SavedOf(*table_, kData);
    used_bytes_ = kTwoCopyHeaderSize + EncodeSlots({false, {}, newer_.slots}).size();
    table_.reset();
    fs_.Reopen();
    const bool a_is_newest = fs_.Contents("slots.a").substr(16, 8) > fs_.Contents("slots.b").substr(16, 8);
    newest_copy_ = a_is_newest ? "slots.a" : "slots.b";
    older_copy_ = a_is_newest ? "slots.b" : "slots.a";
    for (const std::string& copy : {newest_copy_, older_copy_}) {
      fs_.SetContents(copy, fs_.Contents(copy).substr(0, used_bytes_ + kFill));
    }
    ASSERT_EQ(Reopened(), newer_);
    ASSERT_NE(older_, newer_);
  }

  absl::Status Create(const char* name, Lsn lsn) {
    return table_->Create(name, SlotKind::kReplica, kData, lsn).status();
  }

  // What a node finds that starts with the files as they are.
  Saved Reopened() {
    const std::unique_ptr<SimFileSystem> fs = fs_.Clone();
    absl::StatusOr<std::unique_ptr<SlotTable>> table = SlotTable::Open(*fs, "/", clock_, rng_, *NullLogger(), limits_);
    if (!table.ok()) {
      ADD_FAILURE() << table.status();
      return {};
    }
    const Saved saved = SavedOf(**table, kData);
    Lsn floor = saved.unknown ? 0 : ~Lsn{0};
    for (const Slot& slot : saved.slots) floor = std::min(floor, slot.confirmed_lsn + 1);
    EXPECT_EQ((*table)->Floor(kData), floor);
    return saved;
  }

  void ExpectUnknown() {
    const Saved saved = Reopened();
    EXPECT_TRUE(saved.unknown);
    EXPECT_TRUE(saved.slots.empty());
  }

  Saved older_;
  Saved newer_;
  std::string newest_copy_;
  std::string older_copy_;
  size_t used_bytes_ = 0;
};

TEST_F(SlotDamageTest, EveryBitFlip) {
  for (uint64_t bit = 0; bit < 8 * (used_bytes_ + kFill); ++bit) {
    SCOPED_TRACE(bit);
    const bool in_image = bit < 8 * used_bytes_;
    fs_.FlipBit(newest_copy_, bit);
    EXPECT_EQ(Reopened(), in_image ? older_ : newer_);
    fs_.FlipBit(older_copy_, bit);  // the same damage in both
    if (in_image) {
      ExpectUnknown();
    } else {
      EXPECT_EQ(Reopened(), newer_);
    }
    fs_.FlipBit(newest_copy_, bit);
    EXPECT_EQ(Reopened(), newer_);
    fs_.FlipBit(older_copy_, bit);
  }
}

TEST_F(SlotDamageTest, EveryTruncation) {
  const std::string newest = fs_.Contents(newest_copy_);
  const std::string older = fs_.Contents(older_copy_);
  for (size_t size = 0; size < newest.size(); ++size) {
    SCOPED_TRACE(size);
    const bool in_image = size < used_bytes_;
    fs_.SetContents(newest_copy_, newest.substr(0, size));
    EXPECT_EQ(Reopened(), in_image ? older_ : newer_);
    fs_.SetContents(older_copy_, older.substr(0, size));
    if (in_image) {
      ExpectUnknown();
    } else {
      EXPECT_EQ(Reopened(), newer_);
    }
    fs_.SetContents(newest_copy_, newest);
    EXPECT_EQ(Reopened(), newer_);
    fs_.SetContents(older_copy_, older);
  }
}

TEST_F(SlotDamageTest, EveryFlipBesideEveryKindOfLossOfTheOtherCopy) {
  for (const std::string& other : {std::string(), std::string(used_bytes_, '\0'), std::string("TOWSLOT1")}) {
    fs_.SetContents(older_copy_, other);
    EXPECT_EQ(Reopened(), newer_);
    for (uint64_t bit = 0; bit < 8 * used_bytes_; ++bit) {
      SCOPED_TRACE(bit);
      fs_.FlipBit(newest_copy_, bit);
      ExpectUnknown();
      fs_.FlipBit(newest_copy_, bit);
    }
  }
}

TEST_F(SlotDamageTest, FilesThatHoldNothingHaveLostTheirTable) {
  for (const size_t size : {size_t{0}, size_t{1}, used_bytes_}) {
    fs_.SetContents("slots.a", std::string(size, '\0'));
    fs_.SetContents("slots.b", std::string(size, '\0'));
    ExpectUnknown();
  }
  ASSERT_THAT(fs_.Remove("slots.a"), IsOk());
  ExpectUnknown();
  ASSERT_THAT(fs_.Remove("slots.b"), IsOk());
  EXPECT_EQ(Reopened(), Saved());  // as before the first slot
}

TEST_F(SlotDamageTest, UnknownStaysUntilSomebodyAcceptsTheLoss) {
  fs_.FlipBit("slots.a", 100);
  fs_.FlipBit("slots.b", 100);
  Open();
  EXPECT_EQ(table_->Floor(kData), 0u);
  ASSERT_THAT(Create("a", 30), IsOk());  // an owner is back
  EXPECT_EQ(table_->Floor(kData), 0u);
  fs_.Reopen();
  Open();
  EXPECT_TRUE(table_->unknown());
  EXPECT_EQ(table_->List().size(), 1u);
  EXPECT_EQ(table_->Floor(kData), 0u);
  ASSERT_THAT(table_->AcceptLoss(), IsOk());
  EXPECT_EQ(table_->Floor(kData), 31u);
  fs_.Reopen();
  Open();
  EXPECT_FALSE(table_->unknown());
}

TEST_F(SlotDamageTest, AWholeImageThatIsNoTableIsUnknownAndOneOfAnotherVersionIsRefused) {
  TwoCopyFile file(fs_, "/", "slots", kSlotsMagic, kSlotsCapacity);
  ASSERT_THAT(file.SaveBoth(kSlotsVersion, "rubbish"), IsOk());
  EXPECT_TRUE(Reopened().unknown);
  ASSERT_THAT(file.SaveBoth(kSlotsVersion + 1, "rubbish"), IsOk());
  EXPECT_THAT(SlotTable::Open(fs_, "/", clock_, rng_, *NullLogger(), {}), ReasonIs("slots_version"));
}

}  // namespace
}  // namespace towline::slots
