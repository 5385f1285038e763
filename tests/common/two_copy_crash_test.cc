// A TwoCopyFile under power loss at every call, killed processes and failing calls.

#include <set>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/two_copy_file.h"
#include "gtest/gtest.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline {
namespace {

using test::IsOk;
using test::SimFileSystem;

constexpr uint64_t kMagic = 77;
constexpr size_t kCapacity = 2048;  // four sectors

TwoCopyFile MakeFile(FileSystem& fs) { return TwoCopyFile(fs, "d", "f", kMagic, kCapacity); }

// Payload of save `n`: several sectors, each different from the same sector of any other payload. Every fifth is beyond
// the capacity.
std::string Payload(int n) {
  std::string payload;
  const size_t size = n % 5 == 0 ? 3000 : 1300;
  while (payload.size() < size) absl::StrAppend(&payload, "save ", n, " at ", payload.size(), "; ");
  return payload;
}

// Number of the payload that `file` loads; 0 = absent, -1 = damaged or none of ours.
int Loaded(TwoCopyFile& file) {
  TwoCopyImage image;
  const absl::StatusOr<TwoCopyState> state = file.Load(&image);
  EXPECT_THAT(state, IsOk());
  if (!state.ok() || *state == TwoCopyState::kDamaged) return -1;
  if (*state == TwoCopyState::kAbsent) return 0;
  const int n = std::atoi(image.payload.substr(5).c_str());
  return image.payload == Payload(n) ? n : -1;
}

absl::Status Save(TwoCopyFile& file, int n) {
  return n % 3 == 0 ? file.SaveBoth(1, Payload(n)) : file.Save(1, Payload(n));
}

// Recovers on `fs` and saves `next`, losing the power again at every call. Returns what was loaded.
int RecoverAndCrashAgain(SimFileSystem& fs, int next) {
  TwoCopyFile file = MakeFile(fs);
  const int loaded = Loaded(file);
  if (loaded < 0) return loaded;
  fs.SetAfterCall([&] {
    test::ForEachCrashState(fs, 3, [&](SimFileSystem& crashed) {
      TwoCopyFile again = MakeFile(crashed);
      const int found = Loaded(again);
      ASSERT_TRUE(found == loaded || found == next) << "second power loss: " << found << " after " << loaded;
    });
  });
  EXPECT_THAT(Save(file, next), IsOk());
  fs.SetAfterCall(nullptr);
  return loaded;
}

TEST(TwoCopyCrashTest, PowerLossAtEveryCallLeavesTheLastSaveOrTheOneUnderWay) {
  SimFileSystem fs;
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
  int done = 0;
  std::set<int> seen;
  const auto check = [&] {
    test::ForEachCrashState(fs, 6, [&](SimFileSystem& crashed) {
      const int loaded = RecoverAndCrashAgain(crashed, 100);
      ASSERT_TRUE(loaded == done || loaded == done + 1) << loaded << " after save " << done;
      seen.insert(loaded);
    });
  };
  fs.SetAfterCall(check);
  TwoCopyFile file = MakeFile(fs);
  for (int n = 1; n <= 7; ++n) {
    ASSERT_THAT(Save(file, n), IsOk());
    done = n;
    if (HasFailure()) return;
  }
  EXPECT_EQ(seen.size(), 8u);  // each state was really reached
}

// All-zero copies count as absent, so the first save must not be able to leave them damaged.
TEST(TwoCopyCrashTest, FirstSaveOverZeroedCopiesIsAllOrNothing) {
  SimFileSystem fs;
  fs.SetContents("d/f.a", std::string(kCapacity, '\0'));
  fs.SetContents("d/f.b", std::string(kCapacity, '\0'));
  fs.SetAfterCall([&] {
    test::ForEachCrashState(fs, 20, [](SimFileSystem& crashed) {
      TwoCopyFile again = MakeFile(crashed);
      const int found = Loaded(again);
      ASSERT_TRUE(found == 0 || found == 1) << found;
    });
  });
  TwoCopyFile file = MakeFile(fs);
  ASSERT_EQ(Loaded(file), 0);
  ASSERT_THAT(Save(file, 1), IsOk());
}

// A process that dies leaves what it wrote readable but not durable. The next one must not build on that.
TEST(TwoCopyCrashTest, WhatWasSettledAfterAKillSurvivesPowerLoss) {
  SimFileSystem fs;
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
  int done = 0;
  fs.SetAfterCall([&] {
    const auto restarted = fs.Clone();
    TwoCopyFile file = MakeFile(*restarted);
    const int loaded = Loaded(file);
    ASSERT_TRUE(loaded == done || loaded == done + 1) << loaded << " after save " << done;
    bool settled = false;
    const auto check = [&] {
      test::ForEachCrashState(*restarted, 6, [&](SimFileSystem& crashed) {
        TwoCopyFile again = MakeFile(crashed);
        const int found = Loaded(again);
        if (settled || loaded == done) {
          ASSERT_EQ(found, loaded);
        } else {
          ASSERT_TRUE(found == done || found == loaded) << found << " after save " << done;
        }
      });
    };
    restarted->SetAfterCall(check);
    ASSERT_THAT(file.Settle(), IsOk());
    settled = true;
    check();
  });
  TwoCopyFile file = MakeFile(fs);
  for (int n = 1; n <= 7; ++n) {
    ASSERT_THAT(Save(file, n), IsOk());
    done = n;
    if (HasFailure()) return;
  }
}

TEST(TwoCopyCrashTest, ASaveAfterAKillNeverEndangersBothCopies) {
  SimFileSystem fs;
  ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
  ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
  int done = 0;
  fs.SetAfterCall([&] {
    const auto restarted = fs.Clone();
    TwoCopyFile file = MakeFile(*restarted);
    const int loaded = Loaded(file);
    restarted->SetAfterCall([&] {
      test::ForEachCrashState(*restarted, 6, [&](SimFileSystem& crashed) {
        TwoCopyFile again = MakeFile(crashed);
        const int found = Loaded(again);
        ASSERT_TRUE(found == done || found == loaded || found == 100) << found << " after save " << done;
      });
    });
    ASSERT_THAT(Save(file, 100), IsOk());
  });
  TwoCopyFile file = MakeFile(fs);
  for (int n = 1; n <= 7; ++n) {
    ASSERT_THAT(Save(file, n), IsOk());
    done = n;
    if (HasFailure()) return;
  }
}

// Every call fails once, by itself; the saves after it succeed and nothing acknowledged is lost.
void FailEachCall(bool failed_sync_persists) {
  for (int64_t n = 1;; ++n) {
    SCOPED_TRACE(absl::StrCat("call ", n, " of the saves fails"));
    SimFileSystem fs;
    ASSERT_THAT(fs.CreateDirectory("d"), IsOk());
    ASSERT_THAT(fs.SyncDirectory("/"), IsOk());
    fs.SetFailedSyncPersists(failed_sync_persists);
    fs.FailCall(fs.calls() + n, absl::DataLossError("injected"));
    TwoCopyFile file = MakeFile(fs);
    int done = 0;
    std::set<int> open;  // failed since the last success: may or may not be found
    int failures = 0;
    for (int i = 1; i <= 7; ++i) {
      if (Save(file, i).ok()) {
        done = i;
        open.clear();
      } else {
        open.insert(i);
        ++failures;
      }
      test::ForEachCrashState(fs, 4, [&](SimFileSystem& crashed) {
        TwoCopyFile again = MakeFile(crashed);
        const int found = Loaded(again);
        ASSERT_TRUE(found == done || open.count(found) > 0) << found << " after save " << done;
      });
    }
    ASSERT_LE(failures, 1);
    if (::testing::Test::HasFailure()) return;
    if (failures == 0) break;  // call n is behind the last one
    ASSERT_LT(n, 1000);
  }
}

TEST(TwoCopyCrashTest, AnyFailingCallCostsNoSavedImage) { FailEachCall(false); }

TEST(TwoCopyCrashTest, ASyncThatFailsThoughTheDataArrivedCostsNoSavedImage) { FailEachCall(true); }

}  // namespace
}  // namespace towline
