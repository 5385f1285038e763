// Frames: the shipped part as peers send it, the local form as a segment holds it, and groups built of both.
//
// Input: one byte of flags, then frames. Bit 0: shipped parts, else frames with local parts under kSalt. Bit 1: the
// builder's log ends where the first frame begins.

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "tests/fuzz/allocation_meter.h"
#include "tests/fuzz/checksums.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/recovery_model.h"
#include "tests/support/format_doc.h"
#include "tests/wal/spool_fixture.h"
#include "wal/frame.h"
#include "wal/local_frame.h"

namespace towline::fuzz {
namespace {

using wal::FrameCheck;
using wal::FrameGroup;
using wal::GroupBuilder;
using wal::LocalFrame;
using wal::LogEnd;
using wal::ShippedFrame;
using wal::ShippedHeader;

constexpr uint64_t kSalt = 0xdeadbeefcafef00dull;  // of tests/golden/frame_v1.hex
constexpr uint8_t kShipped = 1;
constexpr uint8_t kFollowing = 2;
// A refusal makes an error with a message; nothing else is allocated, whatever length the header claims.
constexpr size_t kErrorBytes = 4096;

std::string Encode(const ShippedHeader& header, absl::string_view payload) {
  std::string bytes(wal::kShippedHeaderSize, '\0');
  wal::EncodeShippedHeader(header, bytes.data());
  return bytes.append(payload.data(), payload.size());
}

// Decodes what stands at the start of `bytes` and checks it against the bytes. Returns the bytes consumed, or 0.
size_t CheckShipped(absl::string_view bytes) {
  absl::StatusOr<ShippedFrame> frame = absl::UnknownError("");
  size_t largest = 0;
  {
    AllocationMeter meter;
    frame = wal::DecodeShipped(bytes);
    largest = meter.largest();
  }
  FUZZ_EXPECT(largest <= kErrorBytes, absl::StrCat("an allocation of ", largest));
  if (!frame.ok()) {
    FUZZ_EXPECT(absl::IsOutOfRange(frame.status()) || GetErrorInfo(frame.status()).reason == "bad_frame",
                frame.status().ToString());
    return 0;
  }
  FUZZ_EXPECT(frame->shipped.size() <= bytes.size() && frame->shipped.data() == bytes.data(), "");
  FUZZ_EXPECT(frame->payload.size() == frame->header.payload_size, "");
  FUZZ_EXPECT(Crc32c(frame->payload) == frame->header.payload_crc, "");
  FUZZ_EXPECT(Encode(frame->header, frame->payload) == frame->shipped, "decode and encode disagree");
  FUZZ_EXPECT(frame->chain() == Xxh3(frame->shipped), "");
  return frame->shipped.size();
}

void CheckShippedParts(absl::string_view bytes) {
  size_t consumed = 0;
  size_t frames = 0;
  const absl::Status all = wal::ForEachShipped(bytes, [&](const ShippedFrame& frame) {
    FUZZ_EXPECT(frame.shipped.data() == bytes.data() + consumed, "frames do not stand back to back");
    consumed += frame.shipped.size();
    ++frames;
    return absl::OkStatus();
  });
  FUZZ_EXPECT(consumed <= bytes.size(), "");
  FUZZ_EXPECT(all.ok() == (consumed == bytes.size()), all.ToString());
  for (absl::string_view rest = bytes; frames > 0; --frames) rest.remove_prefix(CheckShipped(rest));
  if (!all.ok()) CheckShipped(bytes.substr(consumed));
}

// Feeds the shipped parts to a builder, as a replica does.
void CheckBuilder(absl::string_view bytes, bool following) {
  LogEnd end{5, 1, 0x1234, 1000};
  const absl::StatusOr<ShippedFrame> first = wal::DecodeShipped(bytes);
  if (following && first.ok()) {
    end = {first->header.lsn - 1, first->header.term, first->header.prev_chain, first->header.commit_time_us};
  }
  GroupBuilder builder(end);
  std::string expected;
  size_t frames = 0;
  while (true) {
    const LogEnd before = builder.end();
    const size_t size_before = builder.bytes();
    const absl::StatusOr<size_t> added = builder.AddShipped(bytes);
    if (!added.ok()) {
      FUZZ_EXPECT(builder.end() == before && builder.bytes() == size_before, "a refused frame left something behind");
      const std::string reason = GetErrorInfo(added.status()).reason;
      FUZZ_EXPECT(reason == "bad_frame" || reason == "lsn_gap" || reason == "chain_mismatch", reason);
      break;
    }
    FUZZ_EXPECT(*added <= bytes.size() && *added >= wal::kShippedHeaderSize, "");
    FUZZ_EXPECT(CheckShipped(bytes) == *added, "the builder took what does not decode");
    FUZZ_EXPECT(builder.end().lsn == before.lsn + 1 && builder.end().term >= before.term, "");
    FUZZ_EXPECT(builder.end().term >= 1 && builder.end().commit_time_us >= before.commit_time_us, "");
    FUZZ_EXPECT(builder.end().chain == Xxh3(bytes.substr(0, *added)), "");
    expected.append(bytes.data(), *added);
    bytes.remove_prefix(*added);
    ++frames;
  }
  FUZZ_EXPECT(builder.empty() == (frames == 0), "");
  if (builder.empty()) return;
  const std::shared_ptr<FrameGroup> group = builder.Finish();
  FUZZ_EXPECT(group->frames.size() == frames && group->before == end && group->after == builder.end(), "");
  std::string shipped;
  for (size_t i = 0; i < frames; ++i) absl::StrAppend(&shipped, group->shipped(i));
  FUZZ_EXPECT(shipped == expected, "the group does not hold what was fed");
}

FrameCheck Expected(ModelFrame::Finding finding) {
  switch (finding) {
    case ModelFrame::Finding::kNone:
      return FrameCheck::kNoFrame;
    case ModelFrame::Finding::kCut:
      return FrameCheck::kCut;
    case ModelFrame::Finding::kDamaged:
      return FrameCheck::kBadPayload;
    case ModelFrame::Finding::kWhole:
      return FrameCheck::kValid;
  }
  return FrameCheck::kNoFrame;
}

// Goes over frames with local parts, and looks behind them as recovery does.
void CheckLocalFrames(absl::string_view bytes) {
  while (bytes.size() >= wal::kFrameAlignment) {
    LocalFrame frame;
    FrameCheck check;
    size_t largest = 0;
    {
      AllocationMeter meter;
      check = wal::CheckFrame(bytes, kSalt, &frame);
      largest = meter.largest();
    }
    FUZZ_EXPECT(largest <= kErrorBytes, absl::StrCat("an allocation of ", largest));
    const ModelFrame model = FrameAt(bytes, kSalt);
    FUZZ_EXPECT(check == Expected(model.finding), absl::StrCat(static_cast<int>(check)));
    if (check != FrameCheck::kValid) {
      bytes.remove_prefix(wal::kFrameAlignment);
      continue;
    }
    const ShippedHeader& header = frame.frame.header;
    FUZZ_EXPECT(frame.size == model.size && frame.size <= bytes.size() && frame.size % wal::kFrameAlignment == 0, "");
    FUZZ_EXPECT(frame.stamp == model.stamp && header.lsn == model.lsn && header.term == model.term, "");
    FUZZ_EXPECT(header.prev_chain == model.prev_chain && header.commit_time_us == model.commit_time_us, "");
    FUZZ_EXPECT(frame.end().chain == model.chain && frame.frame.payload == model.payload, "");
    std::string again(wal::kLocalPartSize, '\0');
    again += Encode(header, frame.frame.payload);
    again.resize(frame.size, '\0');
    wal::FillLocalPart(frame.stamp, kSalt, again.data());
    FUZZ_EXPECT(again == bytes.substr(0, frame.size), "decode and encode disagree");
    bytes.remove_prefix(frame.size);
  }
}

// Builds records of the input's bytes and takes them apart again.
void CheckRoundTrip(absl::string_view bytes) {
  Input input(bytes);
  const LogEnd start{input.U32(), input.U8(), input.U64(), static_cast<int64_t>(input.U32())};
  GroupBuilder builder(start);
  std::vector<absl::string_view> payloads;
  while (!input.empty() && payloads.size() < 16) {
    const auto type = static_cast<wal::RecordType>(1 + input.Below(3));
    const Term term = std::max<Term>(1, builder.end().term) + input.U8() % 2;
    const int64_t now = static_cast<int64_t>(input.U32());
    const absl::string_view payload = input.Bytes(input.U8());
    payloads.push_back(payload);
    FUZZ_EXPECT(builder.Add(type, term, now, payload, Crc32c(payload)) == start.lsn + payloads.size(), "");
  }
  if (payloads.empty()) return;
  const std::shared_ptr<FrameGroup> group = builder.Finish();
  GroupBuilder replica(start);
  for (size_t i = 0; i < payloads.size(); ++i) {
    const absl::StatusOr<size_t> added = replica.AddShipped(group->shipped(i));
    FUZZ_EXPECT(added.ok() && *added == group->shipped(i).size(), added.status().ToString());
    FUZZ_EXPECT(group->payload(i) == payloads[i], "");
  }
  FUZZ_EXPECT(replica.Finish()->bytes == group->bytes, "a replica's group differs from the primary's");
}

}  // namespace

void FixInput(absl::Span<char> input) {
  if (input.empty()) return;
  const uint8_t flags = static_cast<uint8_t>(input[0]);
  input.remove_prefix(1);
  if ((flags & kShipped) != 0) {
    FixShippedParts(input);
  } else {
    FixFrames(input, kSalt, false, 0);
  }
}

std::vector<Seed> Seeds() {
  const std::shared_ptr<FrameGroup> group = wal::test::MakeGroup({41, 3, 7, 500}, {0, 1, 7, 8, 9, 100}, 3);
  std::string shipped;
  for (size_t i = 0; i < group->frames.size(); ++i) {
    absl::StrAppend(&shipped, group->shipped(i));
    wal::FillLocalPart(41, kSalt, group->bytes.data() + group->frames[i].offset);
  }
  const std::string golden = test::ReadGolden("tests/golden/frame_v1.hex");
  std::string skippable = golden;
  skippable[16] = 9;
  skippable[17] = wal::kFlagSkipIfUnknown;
  FixFrame(absl::MakeSpan(skippable), kSalt);
  const std::string local_flags(1, '\0');
  const std::string shipped_flags(1, static_cast<char>(kShipped | kFollowing));
  return {{"golden", local_flags + golden},
          {"golden_shipped", shipped_flags + golden.substr(wal::kLocalPartSize, wal::kShippedHeaderSize + 10)},
          {"group", local_flags + group->bytes},
          {"group_shipped", shipped_flags + shipped},
          {"group_shipped_not_following", std::string(1, static_cast<char>(kShipped)) + shipped},
          {"skippable", local_flags + skippable},
          {"cut", local_flags + golden.substr(0, 60)}};
}

}  // namespace towline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace towline::fuzz;  // NOLINT: the target's own
  Input input(data, size);
  const uint8_t flags = input.U8();
  const absl::string_view bytes = input.Rest();
  CheckShippedParts(bytes);
  CheckBuilder(bytes, (flags & kFollowing) != 0);
  CheckLocalFrames(bytes);
  CheckRoundTrip(bytes);
  return 0;
}
