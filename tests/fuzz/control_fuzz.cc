// The control file: any two copies give the value of a whole copy, the documented error, or, of two copies that hold
// nothing, no value.

#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/control.h"
#include "common/error.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/two_copy_input.h"
#include "tests/support/format_doc.h"
#include "tests/support/sim_file_system.h"

namespace towline::fuzz {
namespace {

using test::SimFileSystem;

constexpr char kDirectory[] = "node";

// A value that was read can be made durable, changed and read back; a power loss in between takes nothing of it.
void CheckUse(SimFileSystem& fs, ControlFile& file) {
  const Control before = file.Get();
  FUZZ_EXPECT(file.Settle().ok(), "");
  for (const bool both : {false, true}) {
    const absl::Status saved = file.Update(both, [](Control& control) { ++control.watermark; });
    FUZZ_EXPECT(saved.ok(), saved.ToString());
    const std::unique_ptr<SimFileSystem> crashed = fs.CloneAfterCrash(test::CrashProfile::kStrict, 1);
    const absl::StatusOr<std::unique_ptr<ControlFile>> again = ControlFile::Open(*crashed, kDirectory);
    FUZZ_EXPECT(again.ok(), again.status().ToString());
    FUZZ_EXPECT((*again)->exists() && (*again)->Get() == file.Get(), "");
  }
  Control expected = before;
  expected.watermark += 2;
  FUZZ_EXPECT(file.Get() == expected, "");
}

void Run(Input& input) {
  SimFileSystem fs;
  FUZZ_EXPECT(fs.CreateDirectory(kDirectory).ok(), "");
  FUZZ_EXPECT(fs.SyncDirectory("/").ok(), "");
  const TwoCopyInput copies = ReadTwoCopyInput(input, kDirectory, "control", kControlMagic, &fs);
  const std::map<std::string, std::string> before = fs.AllContents();
  const absl::StatusOr<std::unique_ptr<ControlFile>> file = ControlFile::Open(fs, kDirectory);
  FUZZ_EXPECT(fs.AllContents() == before && fs.log().empty(), "reading changed something");

  if (copies.state == TwoCopyState::kAbsent) {
    FUZZ_EXPECT(file.ok() && !(*file)->exists(), file.status().ToString());
    return;
  }
  if (!file.ok()) {
    const std::string reason = GetErrorInfo(file.status()).reason;
    if (copies.state == TwoCopyState::kDamaged) {
      FUZZ_EXPECT(reason == "control_damaged" && absl::IsDataLoss(file.status()), file.status().ToString());
      return;
    }
    bool other_version = false;
    for (const TwoCopyImage& image : copies.newest) other_version = other_version || (image.version != 1 && image.version != kControlVersion);
    FUZZ_EXPECT(reason == "control_damaged"
                    ? absl::IsDataLoss(file.status())
                    : reason == "control_version" && other_version && absl::IsFailedPrecondition(file.status()),
                file.status().ToString());
    return;
  }
  FUZZ_EXPECT(copies.state == TwoCopyState::kValid && (*file)->exists(), "a value without a whole copy");
  bool held = false;
  const std::string value = EncodeControl((*file)->Get());
  for (const TwoCopyImage& image : copies.newest) {
    // A value of version 1 is that of version 2 without the text at its end, which is empty then.
    held = held || (image.version == kControlVersion && image.payload == value) ||
           (image.version == 1 && image.payload + std::string(4, '\0') == value);
  }
  FUZZ_EXPECT(held, "a value that no newest copy holds");
  if (copies.use) CheckUse(fs, **file);
}

}  // namespace

void FixInput(absl::Span<char> input) { FixTwoCopyInput(input, kControlMagic, kControlVersion); }

std::vector<Seed> Seeds() { return TwoCopySeeds(test::ReadGolden("tests/golden/control_v2.hex")); }

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  towline::fuzz::Input input(data, size);
  towline::fuzz::Run(input);
  return 0;
}
