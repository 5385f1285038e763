#include "wal/segment_scan.h"

#include <algorithm>

#include "common/bytes.h"
#include "common/check.h"
#include "wal/local_frame.h"

namespace towline::wal {
namespace {

// Looks for frames of this life behind the run, at every place where one may start.
void ScanBehind(absl::string_view frames, const SegmentHeader& header, SegmentScan* scan) {
  scan->torn_end = scan->end_offset;
  uint64_t offset = scan->end_offset;
  while (offset + kFrameHeaderSize <= frames.size()) {
    const uint64_t here = offset;
    offset += kFrameAlignment;
    if (LoadLe<uint32_t>(frames.data() + here) != kFrameMagic) continue;
    LocalFrame frame;
    const FrameCheck check = CheckFrame(frames.substr(here), header.salt, &frame);
    // A record may hold bytes copied from the log; those repeat an LSN of the run.
    if (check == FrameCheck::kNoFrame || frame.frame.header.lsn <= scan->end.lsn ||
        frame.stamp >= frame.frame.header.lsn) {
      continue;
    }
    scan->stamp = std::max(scan->stamp, frame.stamp);
    scan->torn_end = std::max(scan->torn_end, std::min<uint64_t>(here + frame.size, frames.size()));
    if (check == FrameCheck::kValid) offset = here + frame.size;
  }
}

FooterState CheckFooter(absl::string_view file, const SegmentHeader& header, const SegmentScan& scan) {
  SegmentFooter footer;
  if (!DecodeSegmentFooter(file.substr(FramesEnd(file.size())), &footer).ok() || footer.salt != header.salt) {
    return FooterState::kNone;
  }
  const bool matches = footer.first_lsn == header.first_lsn() && footer.end == scan.end &&
                       footer.end_offset == scan.end_offset && footer.records == scan.end.lsn - header.before.lsn;
  return matches && !scan.torn() ? FooterState::kMatches : FooterState::kContradicted;
}

}  // namespace

SegmentScan ScanSegment(absl::string_view file, const SegmentHeader& header, uint64_t index_interval) {
  TOWLINE_CHECK(file.size() >= kFramesStart + kSectorSize);
  const absl::string_view frames = file.substr(0, FramesEnd(file.size()));
  SegmentScan scan;
  scan.end = header.before;
  uint64_t offset = kFramesStart;
  LocalFrame frame;
  while (offset < frames.size() && CheckFrame(frames.substr(offset), header.salt, &frame) == FrameCheck::kValid &&
         Continues(frame.frame.header, scan.end) && frame.stamp < frame.frame.header.lsn) {
    AddToIndex(frame.frame.header, offset, index_interval, &scan.index);
    if (frame.frame.header.type == RecordType::kTermStart) {
      scan.term_starts.emplace_back(frame.frame.header.lsn, std::string(frame.frame.payload));
    }
    scan.stamp = std::max(scan.stamp, frame.stamp);
    scan.end = frame.end();
    offset += frame.size;
  }
  scan.end_offset = offset;
  ScanBehind(frames, header, &scan);
  scan.footer = CheckFooter(file, header, scan);
  return scan;
}

uint64_t OffsetInScan(absl::string_view file, const SegmentHeader& header, const SegmentScan& scan, Lsn lsn) {
  const IndexEntry& entry = FloorOfLsn(scan.index, lsn);
  uint64_t offset = entry.offset;
  for (Lsn at = entry.lsn; at < lsn; ++at) {
    LocalFrame frame;
    TOWLINE_CHECK(CheckFrame(file.substr(offset), header.salt, &frame) == FrameCheck::kValid);
    offset += frame.size;
  }
  return offset;
}

}  // namespace towline::wal
