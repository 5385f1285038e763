#include "tests/fuzz/recovery_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/checksum.h"

namespace towline::fuzz {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kSmallestSegment = 65536;
constexpr uint64_t kLargestPayload = 67108864;

uint64_t Le(absl::string_view bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i > 0; --i) value = value << 8 | static_cast<uint8_t>(bytes[offset + i - 1]);
  return value;
}

// The end of a log, as headers and footers hold it: LSN, chain, term, reserved, commit time.
struct End {
  Lsn lsn = 0;
  uint64_t chain = 0;
  uint64_t term = 0;
  int64_t time = 0;

  friend bool operator==(const End&, const End&) = default;
};

End EndIn(absl::string_view sector, size_t offset) {
  return {Le(sector, offset, 8), Le(sector, offset + 8, 8), Le(sector, offset + 16, 4),
          static_cast<int64_t>(Le(sector, offset + 24, 8))};
}

bool SectorValid(absl::string_view sector, absl::string_view magic) {
  return sector.size() == kSector && sector.substr(0, 8) == magic && Le(sector, 8, 4) == 1 &&
         Le(sector, 508, 4) == Crc32c(sector.substr(0, 508));
}

struct Segment {
  Lsn name_lsn = 0;
  absl::string_view file;
  bool header_valid = false;
  std::string cluster_id;
  uint64_t generation = 0;
  End before;
  uint64_t salt = 0;
  // Of this life of the file:
  bool has_footer = false;
  Lsn footer_first_lsn = 0;
  uint64_t footer_records = 0;
  End footer_end;
  uint64_t footer_end_offset = 0;
};

Segment Read(Lsn name_lsn, absl::string_view file) {
  Segment segment;
  segment.name_lsn = name_lsn;
  segment.file = file;
  if (file.size() < kSmallestSegment) return segment;
  const absl::string_view header = file.substr(0, kSector);
  if (!SectorValid(header, "\nTWSEG1\n")) return segment;
  segment.cluster_id = std::string(header.substr(16, 24));
  while (!segment.cluster_id.empty() && segment.cluster_id.back() == '\0') segment.cluster_id.pop_back();
  segment.generation = Le(header, 40, 8);
  segment.before = EndIn(header, 48);
  segment.salt = Le(header, 80, 8);
  segment.header_valid = segment.before.lsn + 1 == name_lsn && Le(header, 88, 8) == file.size();
  const absl::string_view footer = file.substr(file.size() - kSector);
  segment.has_footer = SectorValid(footer, "\nTWEND1\n") && Le(footer, 72, 8) == segment.salt;
  segment.footer_first_lsn = Le(footer, 16, 8);
  segment.footer_records = Le(footer, 24, 8);
  segment.footer_end = EndIn(footer, 32);
  segment.footer_end_offset = Le(footer, 64, 8);
  return segment;
}

// The footer of a sealed segment belongs to its header. (recovery.md says "valid footer"; what a footer repeats of the
// header, and what lies within the file, is taken to be part of that.)
bool SealedFooterValid(const Segment& segment) {
  return segment.has_footer && segment.footer_first_lsn == segment.before.lsn + 1 &&
         segment.footer_records == segment.footer_end.lsn - segment.before.lsn &&
         segment.footer_end_offset >= kSector && segment.footer_end_offset <= segment.file.size() - kSector;
}

// Names of segments are 20 digits.
std::optional<Lsn> SegmentLsn(const std::string& name) {
  if (name.size() != 24 || name.substr(20) != ".seg") return std::nullopt;
  Lsn lsn = 0;
  for (size_t i = 0; i < 20; ++i) {
    if (name[i] < '0' || name[i] > '9') return std::nullopt;
    const Lsn digit = static_cast<Lsn>(name[i] - '0');
    if (lsn > (UINT64_MAX - digit) / 10) return std::nullopt;
    lsn = lsn * 10 + digit;
  }
  return lsn;
}

bool SealedDamaged(const std::vector<Segment>& segments, const wal::RecoveryInputs& inputs, Lsn first_retained) {
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    const bool newest = i + 1 == segments.size();
    if (!segment.header_valid) {
      // The header of the newest segment has a row of its own; nothing else can be said about it.
      if (newest) return false;
      return true;
    }
    if (segment.cluster_id != inputs.cluster_id || segment.generation > inputs.generation) return true;
    if (!newest && !SealedFooterValid(segment)) return true;
    if (i > 0) {
      if (segments[i - 1].footer_end != segment.before) return true;
      continue;
    }
    if (segment.name_lsn > first_retained || segment.name_lsn <= inputs.base.lsn) return true;
    if (segment.name_lsn == inputs.base.lsn + 1 &&
        (segment.before.chain != inputs.base.chain || segment.before.term != inputs.base.term)) {
      return true;
    }
  }
  return false;
}

// The newest segment, read from its start.
struct Newest {
  End end;
  uint64_t end_offset = kSector;
  Lsn stamp = 0;
  uint64_t torn_end = 0;  // 0 = no frame of this salt behind the end
  std::vector<std::string> payloads;
};

Newest ReadNewest(const Segment& segment) {
  Newest newest;
  newest.end = segment.before;
  const absl::string_view frames = segment.file.substr(0, segment.file.size() - kSector);
  uint64_t at = kSector;
  while (true) {
    const ModelFrame frame = FrameAt(frames.substr(at), segment.salt);
    if (frame.finding != ModelFrame::Finding::kWhole || frame.stamp >= frame.lsn || frame.lsn != newest.end.lsn + 1 ||
        frame.prev_chain != newest.end.chain || frame.term < newest.end.term ||
        frame.commit_time_us < newest.end.time) {
      break;
    }
    newest.end = {frame.lsn, frame.chain, frame.term, frame.commit_time_us};
    newest.stamp = std::max(newest.stamp, frame.stamp);
    newest.payloads.emplace_back(frame.payload);
    at += frame.size;
  }
  newest.end_offset = at;
  while (at < frames.size()) {
    const ModelFrame frame = FrameAt(frames.substr(at), segment.salt);
    const bool found =
        frame.finding != ModelFrame::Finding::kNone && frame.lsn > newest.end.lsn && frame.stamp < frame.lsn;
    if (found) {
      newest.stamp = std::max(newest.stamp, frame.stamp);
      newest.torn_end = std::max(newest.torn_end, std::min<uint64_t>(at + frame.size, frames.size()));
    }
    // What lies inside a whole record is payload, not a frame. (recovery.md: "any place"; that a whole frame's inside
    // is not such a place is this model's reading.)
    at += found && frame.finding == ModelFrame::Finding::kWhole ? frame.size : 8;
  }
  return newest;
}

ModelVerdict Refuse(std::string row, Lsn watermark) {
  ModelVerdict verdict;
  verdict.row = std::move(row);
  verdict.refused = true;
  verdict.watermark = watermark;
  return verdict;
}

ModelVerdict JudgeNewest(const Segment& segment, Lsn watermark) {
  Newest newest = ReadNewest(segment);
  watermark = std::max(watermark, newest.stamp);
  if (newest.end.lsn < watermark) return Refuse("below_watermark", watermark);
  ModelVerdict verdict;
  verdict.watermark = watermark;
  verdict.end_lsn = newest.end.lsn;
  verdict.end_chain = newest.end.chain;
  verdict.payloads = std::move(newest.payloads);
  if (segment.has_footer) {
    const bool agrees = segment.footer_first_lsn == segment.name_lsn && segment.footer_end == newest.end &&
                        segment.footer_records == newest.end.lsn - segment.before.lsn &&
                        segment.footer_end_offset == newest.end_offset && newest.torn_end == 0;
    if (!agrees) return Refuse("newest_footer_contradicted", watermark);
    verdict.row = "newest_footer";
    return verdict;
  }
  verdict.row = newest.torn_end == 0 ? "newest_clean" : "newest_torn";
  if (newest.torn_end != 0) verdict.quarantined_bytes = newest.torn_end - newest.end_offset;
  return verdict;
}

}  // namespace

ModelFrame FrameAt(absl::string_view bytes, uint64_t salt) {
  ModelFrame frame;
  if (bytes.size() < 56 || bytes.substr(0, 4) != "TWFM") return frame;
  std::string covered(bytes.substr(8, 48));
  for (int i = 0; i < 8; ++i) covered.push_back(static_cast<char>(salt >> (8 * i)));
  if (Le(bytes, 4, 4) != Crc32c(covered)) return frame;
  const uint64_t length = Le(bytes, 20, 4);
  frame.type = static_cast<uint8_t>(bytes[16]);
  frame.flags = static_cast<uint8_t>(bytes[17]);
  const bool known = frame.type >= 1 && frame.type <= 3;
  if ((frame.flags & 0xfe) != 0 || Le(bytes, 18, 2) != 0 || (!known && frame.flags == 0) || length > kLargestPayload) {
    return frame;
  }
  frame.stamp = Le(bytes, 8, 8);
  frame.term = static_cast<uint32_t>(Le(bytes, 24, 4));
  frame.lsn = Le(bytes, 32, 8);
  frame.commit_time_us = static_cast<int64_t>(Le(bytes, 40, 8));
  frame.prev_chain = Le(bytes, 48, 8);
  frame.size = (56 + length + 7) / 8 * 8;
  frame.finding = ModelFrame::Finding::kCut;
  if (frame.size > bytes.size()) return frame;
  frame.finding = ModelFrame::Finding::kDamaged;
  frame.payload = bytes.substr(56, length);
  if (Le(bytes, 28, 4) != Crc32c(frame.payload)) return frame;
  for (uint64_t i = 56 + length; i < frame.size; ++i) {
    if (bytes[i] != '\0') return frame;
  }
  frame.finding = ModelFrame::Finding::kWhole;
  frame.chain = Xxh3(bytes.substr(16, 40 + length));
  return frame;
}

ModelVerdict Judge(const std::map<std::string, std::string>& files, const wal::RecoveryInputs& inputs) {
  const Lsn first_retained = std::max(inputs.first_retained, inputs.base.lsn + 1);
  Lsn watermark = first_retained - 1;
  for (const wal::Watermark& each : inputs.watermarks) watermark = std::max(watermark, each.lsn);

  std::vector<Segment> segments;
  for (const auto& [name, bytes] : files) {
    const std::optional<Lsn> lsn = SegmentLsn(name);
    if (!lsn.has_value()) continue;
    // Those so far end where this one begins.
    if (*lsn <= first_retained) segments.clear();
    segments.push_back(Read(*lsn, bytes));
  }
  if (SealedDamaged(segments, inputs, first_retained)) return Refuse("sealed_damaged", watermark);
  if (!segments.empty() && !segments.back().header_valid) return Refuse("newest_header_damaged", watermark);
  if (segments.empty()) {
    if (inputs.base.lsn < watermark) return Refuse("below_watermark", watermark);
    ModelVerdict verdict;
    verdict.row = "no_segment";
    verdict.watermark = watermark;
    verdict.end_lsn = inputs.base.lsn;
    verdict.end_chain = inputs.base.chain;
    return verdict;
  }
  if (segments.size() > 1) watermark = std::max(watermark, segments.back().before.lsn);
  return JudgeNewest(segments.back(), watermark);
}

}  // namespace towline::fuzz
