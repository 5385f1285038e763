// Writing behind the caller: order, memory, errors.

#include "common/write_behind.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/error.h"
#include "common/file_system.h"
#include "common/mutex.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/thread_turn.h"

namespace towline {
namespace {

using test::IsOk;
using test::ReasonIs;
using test::StatusIs;
using test::ThreadTurnNanos;

// What was written, in its order; may be held up.
class Target {
 public:
  WriteBehind::Write write() {
    return [this](uint64_t offset, absl::string_view data) { return Write(offset, data); };
  }

  void SetHeld(bool held) {
    MutexLock lock(&mutex_);
    held_ = held;
    changed_.NotifyAll();
  }

  void FailAt(uint64_t offset) { fail_at_ = offset; }

  std::string bytes() const {
    MutexLock lock(&mutex_);
    return bytes_;
  }
  std::vector<uint64_t> offsets() const {
    MutexLock lock(&mutex_);
    return offsets_;
  }

 private:
  absl::Status Write(uint64_t offset, absl::string_view data) {
    EXPECT_NE(std::this_thread::get_id(), caller_);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data.data()) % kDirectAlignment, 0u);
    EXPECT_LE(data.size(), WriteBehind::kPieceBytes);
    MutexLock lock(&mutex_);
    while (held_) changed_.Wait(&mutex_);
    offsets_.push_back(offset);
    if (offset == fail_at_) return FileError(28 /* ENOSPC */, "write", "target");
    if (bytes_.size() < offset + data.size()) bytes_.resize(offset + data.size());
    bytes_.replace(offset, data.size(), data.data(), data.size());
    return absl::OkStatus();
  }

  const std::thread::id caller_ = std::this_thread::get_id();
  uint64_t fail_at_ = UINT64_MAX;
  mutable Mutex mutex_;
  CondVar changed_;
  bool held_ TOWLINE_GUARDED_BY(mutex_) = false;
  std::string bytes_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<uint64_t> offsets_ TOWLINE_GUARDED_BY(mutex_);
};

absl::Status Add(WriteBehind& behind, uint64_t offset, absl::string_view data) {
  return behind.Add(offset, {&data, 1});
}

TEST(WriteBehindTest, WhatStandsInSeveralPlacesIsWrittenAsOne) {
  constexpr size_t kMax = WriteBehind::kPieceBytes;
  Target target;
  WriteBehind behind(target.write());
  const std::string a(100, 'a');
  const std::string b(kMax - 100, 'b');  // fills the block
  const std::string c(kMax + 3, 'c');    // more than one
  const std::string d(7, 'd');
  ASSERT_THAT(behind.Add(0, {a, b, "", c, d}), IsOk());
  ASSERT_THAT(behind.Add(2 * kMax + 10, {d, a}), IsOk());
  ASSERT_THAT(behind.Drain(), IsOk());
  EXPECT_TRUE(target.bytes() == a + b + c + d + d + a);
  EXPECT_EQ(target.offsets(), (std::vector<uint64_t>{0, kMax, 2 * kMax, 2 * kMax + 10}));
}

TEST(WriteBehindTest, TheDiskWaitsForTheWriterNoLongerThanATurn) {
  if (ThreadTurnNanos() == 0) GTEST_SKIP() << "this kernel does not say how long a turn is";
  uint64_t turn = 0;
  WriteBehind behind([&turn](uint64_t, absl::string_view) {
    turn = ThreadTurnNanos();
    return absl::OkStatus();
  });
  ASSERT_THAT(Add(behind, 0, "x"), IsOk());
  ASSERT_THAT(behind.Drain(), IsOk());
  EXPECT_LT(turn, ThreadTurnNanos());
}

TEST(WriteBehindTest, EverythingIsWrittenInOrderAndInPieces) {
  Target target;
  WriteBehind behind(target.write());
  std::string expected;
  std::vector<uint64_t> offsets;
  for (int i = 0; i < 20; ++i) {
    std::string data(i == 7 ? 2 * WriteBehind::kPieceBytes + 5 : 1000 + i, static_cast<char>('a' + i));
    for (size_t piece = 0; piece < data.size(); piece += WriteBehind::kPieceBytes) {
      offsets.push_back(expected.size() + piece);
    }
    ASSERT_THAT(Add(behind, expected.size(), data), IsOk());
    expected += data;
    data.assign(data.size(), '?');  // it was copied
  }
  ASSERT_THAT(behind.Drain(), IsOk());
  EXPECT_TRUE(target.bytes() == expected);
  EXPECT_EQ(target.offsets(), offsets);
}

TEST(WriteBehindTest, TheCallerGoesOnWhileTheDiskIsBusyUntilTooMuchWaits) {
  Target target;
  WriteBehind behind(target.write());
  target.SetHeld(true);
  for (int i = 0; i < 3; ++i) ASSERT_THAT(Add(behind, i, "x"), IsOk());
  EXPECT_EQ(target.offsets().size(), 0u);
  // A fourth waits, until this lets the first one through.
  std::thread release([&] { target.SetHeld(false); });
  ASSERT_THAT(Add(behind, 3, "x"), IsOk());
  EXPECT_GE(target.offsets().size(), 1u);
  release.join();
  ASSERT_THAT(behind.Drain(), IsOk());
  EXPECT_EQ(target.bytes(), "xxxx");
}

TEST(WriteBehindTest, TheFirstErrorIsFinalAndNothingIsWrittenBehindIt) {
  Target target;
  target.FailAt(1);
  WriteBehind behind(target.write());
  target.SetHeld(true);
  for (int i = 0; i < 3; ++i) ASSERT_THAT(Add(behind, i, "x"), IsOk());
  target.SetHeld(false);
  EXPECT_THAT(behind.Drain(), ReasonIs("disk_full"));
  EXPECT_THAT(Add(behind, 3, "x"), ReasonIs("disk_full"));
  EXPECT_THAT(behind.Drain(), ReasonIs("disk_full"));
  EXPECT_EQ(target.offsets(), (std::vector<uint64_t>{0, 1}));
}

TEST(WriteBehindTest, WhatWasAddedIsWrittenWhenItGoesAway) {
  Target target;
  target.SetHeld(true);
  auto behind = std::make_unique<WriteBehind>(target.write());
  for (int i = 0; i < 3; ++i) ASSERT_THAT(Add(*behind, i, "x"), IsOk());
  target.SetHeld(false);
  behind.reset();
  EXPECT_EQ(target.bytes(), "xxx");
}

TEST(WriteBehindTest, AFileToldSoReportsAFullDiskWithALaterCall) {
  FileSystem& fs = *PosixFileSystem();
  const auto opened = fs.Open("/dev/full", OpenMode::kReadWrite);
  ASSERT_THAT(opened, IsOk());
  File& file = **opened;
  file.WriteDirectly(DirectWrites::kBehind);
  EXPECT_THAT(file.WriteAt(0, "x"), IsOk());
  EXPECT_THAT(file.SyncData(), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(file.WriteAt(1, "x"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(file.Truncate(0), StatusIs(absl::StatusCode::kResourceExhausted));
}

}  // namespace
}  // namespace towline
