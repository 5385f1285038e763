#include "wal/segment_format.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/checksum.h"
#include "common/error.h"

namespace towline::wal {
namespace {

constexpr size_t kCrcOffset = kSectorSize - sizeof(uint32_t);
constexpr size_t kLsnDigits = 20;

// Fills the rest of the sector with zeros and puts the CRC32C of everything before it at its end.
std::string Seal(std::string sector) {
  TOWLINE_CHECK(sector.size() <= kCrcOffset);
  sector.resize(kCrcOffset, '\0');
  const uint32_t crc = Crc32c(sector);
  ByteWriter(&sector).U32(crc);
  return sector;
}

absl::Status CheckSector(absl::string_view what, absl::string_view sector, uint64_t magic) {
  if (sector.size() != kSectorSize) {
    return absl::DataLossError(absl::StrCat(what, " of ", sector.size(), " bytes"));
  }
  if (LoadLe<uint64_t>(sector.data()) != magic) return absl::DataLossError(absl::StrCat(what, " has no magic number"));
  // Before the CRC: a later version may keep its checksum elsewhere.
  const uint32_t version = LoadLe<uint32_t>(sector.data() + 8);
  if (version != kSegmentVersion) {
    return absl::DataLossError(
        absl::StrCat(what, " has version ", version, ", this program reads version ", kSegmentVersion));
  }
  const uint32_t stored = LoadLe<uint32_t>(sector.data() + kCrcOffset);
  if (stored != Crc32c(sector.substr(0, kCrcOffset))) {
    return absl::DataLossError(absl::StrCat(what, " fails its checksum"));
  }
  return absl::OkStatus();
}

void WriteLogEnd(const LogEnd& end, ByteWriter* writer) {
  writer->U64(end.lsn);
  writer->U64(end.chain);
  writer->U32(end.term);
  writer->U32(0);
  writer->U64(static_cast<uint64_t>(end.commit_time_us));
}

LogEnd ReadLogEnd(ByteReader* reader) {
  LogEnd end;
  end.lsn = reader->U64();
  end.chain = reader->U64();
  end.term = reader->U32();
  reader->U32();
  end.commit_time_us = static_cast<int64_t>(reader->U64());
  return end;
}

// Digits only, at least one.
bool ParseNumber(absl::string_view digits, uint64_t* number) {
  for (const char c : digits) {
    if (c < '0' || c > '9') return false;
  }
  return absl::SimpleAtoi(digits, number);
}

}  // namespace

std::string EncodeSegmentHeader(const SegmentHeader& header) {
  TOWLINE_CHECK(header.cluster_id.size() <= kClusterIdSize);
  std::string sector;
  ByteWriter writer(&sector);
  writer.U64(kSegmentMagic);
  writer.U32(kSegmentVersion);
  writer.U32(0);
  writer.Bytes(header.cluster_id);
  writer.Bytes(std::string(kClusterIdSize - header.cluster_id.size(), '\0'));
  writer.U64(header.generation);
  WriteLogEnd(header.before, &writer);
  writer.U64(header.salt);
  writer.U64(header.file_size);
  return Seal(std::move(sector));
}

absl::Status DecodeSegmentHeader(absl::string_view sector, SegmentHeader* header) {
  TOWLINE_RETURN_IF_ERROR(CheckSector("segment header", sector, kSegmentMagic));
  ByteReader reader(sector);
  reader.Bytes(16);
  absl::string_view cluster_id = reader.Bytes(kClusterIdSize);
  while (!cluster_id.empty() && cluster_id.back() == '\0') cluster_id.remove_suffix(1);
  header->cluster_id = std::string(cluster_id);
  header->generation = reader.U64();
  header->before = ReadLogEnd(&reader);
  header->salt = reader.U64();
  header->file_size = reader.U64();
  return absl::OkStatus();
}

std::string EncodeSegmentFooter(const SegmentFooter& footer) {
  std::string sector;
  ByteWriter writer(&sector);
  writer.U64(kFooterMagic);
  writer.U32(kSegmentVersion);
  writer.U32(0);
  writer.U64(footer.first_lsn);
  writer.U64(footer.records);
  WriteLogEnd(footer.end, &writer);
  writer.U64(footer.end_offset);
  writer.U64(footer.salt);
  return Seal(std::move(sector));
}

absl::Status DecodeSegmentFooter(absl::string_view sector, SegmentFooter* footer) {
  TOWLINE_RETURN_IF_ERROR(CheckSector("segment footer", sector, kFooterMagic));
  ByteReader reader(sector);
  reader.Bytes(16);
  footer->first_lsn = reader.U64();
  footer->records = reader.U64();
  footer->end = ReadLogEnd(&reader);
  footer->end_offset = reader.U64();
  footer->salt = reader.U64();
  return absl::OkStatus();
}

FileName ParseFileName(absl::string_view name) {
  FileName parsed;
  absl::string_view stem = name;
  const bool segment = absl::ConsumeSuffix(&stem, ".seg");
  if (!segment && !absl::ConsumeSuffix(&stem, ".idx")) return parsed;
  FileKind kind = segment ? FileKind::kSegment : FileKind::kIndex;
  bool numbered = false;
  if (segment && absl::ConsumePrefix(&stem, "spare-")) {
    kind = FileKind::kSpare;
    numbered = true;
  } else if (segment && absl::ConsumePrefix(&stem, "tmp-")) {
    kind = FileKind::kTmp;
    numbered = true;
  }
  if (!segment && absl::StartsWith(stem, "tmp-")) {
    parsed.kind = FileKind::kTmp;
    return parsed;
  }
  if (!numbered && stem.size() != kLsnDigits) return parsed;
  if (ParseNumber(stem, &parsed.number)) parsed.kind = kind;
  return parsed;
}

std::string SegmentFileName(Lsn first_lsn) { return absl::StrCat(absl::Dec(first_lsn, absl::kZeroPad20), ".seg"); }
std::string IndexFileName(Lsn first_lsn) { return absl::StrCat(absl::Dec(first_lsn, absl::kZeroPad20), ".idx"); }
std::string SpareFileName(uint64_t number) { return absl::StrCat("spare-", number, ".seg"); }
std::string TmpIndexFileName(Lsn first_lsn) { return absl::StrCat("tmp-", first_lsn, ".idx"); }
std::string TmpFileName(uint64_t number) { return absl::StrCat("tmp-", number, ".seg"); }

absl::Status PlaceError(absl::StatusCode code, absl::string_view reason, absl::string_view what, absl::string_view file,
                        uint64_t offset, Lsn lsn, absl::string_view next_action) {
  ErrorInfo info;
  info.reason = std::string(reason);
  info.message = absl::StrCat(file, " at offset ", offset, lsn == 0 ? "" : absl::StrCat(", LSN ", lsn), ": ", what);
  info.next_action = std::string(next_action);
  info.metadata["file"] = std::string(file);
  info.metadata["offset"] = absl::StrCat(offset);
  if (lsn != 0) info.metadata["lsn"] = absl::StrCat(lsn);
  return MakeError(code, std::move(info));
}

}  // namespace towline::wal
