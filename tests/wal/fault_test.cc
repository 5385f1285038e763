// Deliberate faults in the spool, switched on one by one: each has to be caught.
//
// Goal     The rules of the log are guarded by checks that can fail. A scenario says what it saw go wrong; without the
//          fault it must see nothing, with it something.
// Method   Failpoints (common/failpoint.h) make the product break one rule. Faults that need a crash at the right
// moment
//          are in crash_test.cc, those of the slots in tests/slots/slot_crash_test.cc.

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/failpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"
#include "wal/index.h"
#include "wal/local_frame.h"
#include "wal/segment_format.h"

namespace towline::wal::test {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;
using ::towline::test::CrashProfile;

constexpr uint64_t kSector = 512;
constexpr size_t kPayload = 200;  // frames of 256 bytes
constexpr uint64_t kFrame = 256;

uint64_t OffsetOf(Lsn lsn) { return kSector + (lsn - 1) * kFrame; }

// What is wrong with a log that must hold exactly the records 1 to `last`.
std::string CheckRecords(Node& node, Lsn last) {
  const absl::StatusOr<std::vector<ReadRecord>> records = ReadAll(*node.spool, 1);
  if (!records.ok()) return records.status().ToString();
  if (records->size() != last) return absl::StrCat("it holds ", records->size(), " records, not ", last);
  for (const ReadRecord& record : *records) {
    if (record.payload != PayloadOf(record.lsn, kPayload)) return absl::StrCat("LSN ", record.lsn, " is another one");
  }
  return "";
}

std::string Reopen(Node& node, const RecoveryInputs& inputs, Lsn last) {
  const absl::Status opened = node.Open(SmallOptions(), inputs);
  return opened.ok() ? CheckRecords(node, last) : opened.ToString();
}

// A sync fails and loses the data, as kernels do; what is acknowledged all the same is gone after a power loss.
std::string FailingSync() {
  SimFileSystem fs;
  Node node(fs);
  if (!node.Open().ok() || !node.Append({kPayload}).ok()) return "no start";
  fs.FailNext(towline::test::SimCall::kSync, MakeError(absl::StatusCode::kDataLoss, "io_error", "injected"));
  const Lsn acknowledged = node.Append({kPayload}).ok() ? 2 : 1;
  const auto crashed = fs.CloneAfterCrash(CrashProfile::kStrict, 1);
  Node after(*crashed);
  return Reopen(after, Inputs(), acknowledged);
}

// Every bit of a frame's header is covered by the header's own checksum: a wrong length is never acted upon.
std::string FlippedHeaders() {
  std::string bytes = MakeGroup(LogEnd(), {kPayload})->bytes;
  FillLocalPart(0, 77, bytes.data());
  for (size_t bit = 0; bit < kFrameHeaderSize * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    LocalFrame frame;
    if (CheckFrame(flipped, 77, &frame) != FrameCheck::kNoFrame) return absl::StrCat("bit ", bit, " is not covered");
  }
  return "";
}

// Frames of another history, whole in themselves, stand where records 3 and 4 were.
std::string ForeignFrames() {
  SimFileSystem fs;
  Node node(fs);
  if (!node.Open().ok() || !node.Append({kPayload, kPayload, kPayload, kPayload}).ok()) return "no start";
  node.Close();
  std::string file = fs.Contents(SegmentPath(1));
  SegmentHeader header;
  if (!DecodeSegmentHeader(absl::string_view(file).substr(0, kSector), &header).ok()) return "no header";
  LogEnd other;
  other.lsn = 2;
  other.term = 1;
  other.chain = 4711;
  other.commit_time_us = 2000;
  std::string foreign = MakeGroup(other, {kPayload, kPayload})->bytes;
  for (const size_t offset : {size_t{0}, size_t{kFrame}}) FillLocalPart(0, header.salt, foreign.data() + offset);
  file.replace(OffsetOf(3), foreign.size(), foreign);
  fs.SetContents(SegmentPath(1), file);
  const absl::Status opened = node.Open();
  if (!opened.ok()) return opened.ToString();
  return node.spool->end().lsn == 2 ? "" : absl::StrCat("the log goes on to LSN ", node.spool->end().lsn);
}

// A record that was durable rots.
std::string RotBelowTheWatermark() {
  SimFileSystem fs;
  Node node(fs);
  if (!node.Open().ok() || !node.Append({kPayload, kPayload, kPayload}).ok()) return "no start";
  node.Close();
  fs.FlipBit(SegmentPath(1), (OffsetOf(2) + 100) * 8);
  const absl::Status opened = node.Open(SmallOptions(), Inputs(3));
  if (!opened.ok()) return GetErrorInfo(opened).reason == "wal_corrupt" ? "" : opened.ToString();
  return absl::StrCat("it opened, and ends with LSN ", node.spool->end().lsn);
}

// The second of four unsynced frames is missing; the ones behind it are there. It ends with a page, so that writing it
// again touches nothing behind it.
std::string FramesBehindAHole() {
  SimFileSystem fs;
  Node node(fs);
  constexpr size_t kFirst = 1480;   // a frame of 1536 bytes: up to offset 2048
  constexpr size_t kSecond = 1992;  // a frame of 2048 bytes: up to 4096
  if (!node.Open().ok() || !node.Append({kFirst, kSecond, kPayload, kPayload}).ok()) return "no start";
  node.Close();
  std::string file = fs.Contents(SegmentPath(1));
  file.replace(2048, 2048, std::string(2048, '\0'));
  fs.SetContents(SegmentPath(1), file);
  if (!node.Open().ok() || node.spool->end().lsn != 1) return "it does not end in front of the hole";
  if (!node.Append({kSecond}).ok()) return "it cannot be appended to";
  if (!node.Open().ok()) return "it does not open";
  return node.spool->end().lsn == 2 ? "" : absl::StrCat("the log goes on to LSN ", node.spool->end().lsn);
}

// The same log in a file of a former life stands behind the end.
std::string FramesOfAFormerLife() {
  SimFileSystem fs;
  SimFileSystem former_fs;
  Node node(fs, 1);
  Node former(former_fs, 2);
  const std::vector<size_t> group(5, kPayload);
  if (!node.Open().ok() || !node.Append({kPayload, kPayload, kPayload}).ok()) return "no start";
  if (!former.Open().ok() || !former.Append(group).ok()) return "no start";
  node.Close();
  const std::string file = fs.Contents(SegmentPath(1)).substr(0, OffsetOf(4));
  fs.SetContents(SegmentPath(1), file + former_fs.Contents(SegmentPath(1)).substr(OffsetOf(4)));
  return Reopen(node, Inputs(), 3);
}

// The first retained LSN cannot be saved.
std::string UnsavedPrune() {
  SimFileSystem fs;
  Node node(fs);
  if (!node.Open().ok()) return "no start";
  while (node.spool->stats().segments < 3) {
    if (!node.Append(std::vector<size_t>(40, kPayload)).ok()) return "no start";
  }
  const Lsn last = node.spool->end().lsn;
  const auto refuse = [](Lsn) { return MakeError(absl::StatusCode::kDataLoss, "io_error", "injected"); };
  if (node.spool->Prune(last, 0, refuse).ok()) return "it prunes without saving";
  return Reopen(node, Inputs(), last);
}

// An index whose checksum is right and whose offsets are not.
std::string HostileIndex() {
  SimFileSystem fs;
  Node node(fs);
  if (!node.Open().ok()) return "no start";
  while (node.spool->stats().segments < 2) {
    if (!node.Append(std::vector<size_t>(40, kPayload)).ok()) return "no start";
  }
  const Lsn last = node.spool->end().lsn;
  node.RunLoops();
  node.Close();
  const std::string file = fs.Contents(SegmentPath(1));
  SegmentHeader header;
  SegmentFooter footer;
  if (!DecodeSegmentHeader(absl::string_view(file).substr(0, kSector), &header).ok() ||
      !DecodeSegmentFooter(absl::string_view(file).substr(file.size() - kSector), &footer).ok()) {
    return "no segment";
  }
  const IndexOwner owner{1, footer.end.lsn, header.salt, footer.end_offset};
  IndexEntries entries;
  std::string what;
  if (!DecodeIndex(fs.Contents(IndexPath(1)), owner, &entries, &what)) return what;
  for (size_t i = 1; i < entries.size(); ++i) entries[i].offset += 8;
  fs.SetContents(IndexPath(1), EncodeIndex(owner, entries));
  if (!node.Open().ok()) return "it does not open";
  const absl::StatusOr<std::vector<ReadRecord>> records = ReadAll(*node.spool, 100);
  if (!records.ok()) return records.status().ToString();
  return records->size() == last - 99 ? "" : "records are missing";
}

struct Fault {
  const char* failpoint;
  std::string (*scenario)();
};

void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.failpoint; }

class FaultTest : public ::testing::TestWithParam<Fault> {};

TEST_P(FaultTest, IsCaught) {
  EXPECT_THAT(GetParam().scenario(), IsEmpty()) << "without the fault nothing is wrong";
  const FailpointScope fault(GetParam().failpoint);
  EXPECT_THAT(GetParam().scenario(), Not(IsEmpty())) << GetParam().failpoint << " went unnoticed";
}

INSTANTIATE_TEST_SUITE_P(
    All, FaultTest,
    ::testing::Values(Fault{"wal_retry_failed_sync", FailingSync}, Fault{"wal_crc_without_length", FlippedHeaders},
                      Fault{"wal_ignore_chain", ForeignFrames},
                      Fault{"wal_truncate_below_watermark", RotBelowTheWatermark},
                      Fault{"wal_keep_after_hole", FramesBehindAHole}, Fault{"wal_ignore_salt", FramesOfAFormerLife},
                      Fault{"wal_unlink_before_save", UnsavedPrune}, Fault{"wal_trust_index", HostileIndex}),
    [](const auto& param_info) { return std::string(param_info.param.failpoint); });

}  // namespace
}  // namespace towline::wal::test
