#include "primary/file_snapshot_format.h"

#include <utility>

#include "common/bytes.h"
#include "common/checksum.h"
#include "common/error.h"

namespace towline {
namespace {

constexpr size_t kCrcBytes = 4;

absl::Status Refuse(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "snapshot_damaged", what, "the files are copied anew");
}

}  // namespace

std::string EncodeFileSnapshot(const FileSnapshotRecord& record) {
  std::string out;
  ByteWriter writer(&out);
  writer.U64(kFileSnapshotMagic);
  writer.U32(kFileSnapshotVersion);
  writer.U32(record.position.term);
  writer.U64(record.position.term_id);
  writer.U64(record.position.lsn);
  writer.U64(record.position.chain);
  writer.U64(record.created_unix_s);
  writer.U64(record.estimated_keys);
  writer.U32(static_cast<uint32_t>(record.files.size()));
  for (const SnapshotFileEntry& file : record.files) {
    writer.U64(file.size);
    writer.U8(file.crc32c.has_value() ? 1 : 0);
    writer.U32(file.crc32c.value_or(0));
    writer.LengthPrefixed(file.name);
  }
  writer.U32(Crc32c(out));
  return out;
}

absl::StatusOr<FileSnapshotRecord> DecodeFileSnapshot(absl::string_view bytes) {
  if (bytes.size() < kCrcBytes) return Refuse("SNAPSHOT is cut off");
  const absl::string_view body = bytes.substr(0, bytes.size() - kCrcBytes);
  if (Crc32c(body) != LoadLe<uint32_t>(bytes.data() + body.size())) return Refuse("SNAPSHOT has a wrong checksum");
  ByteReader reader(body);
  if (reader.U64() != kFileSnapshotMagic || reader.U32() != kFileSnapshotVersion) {
    return Refuse("SNAPSHOT is of another version, or of another program");
  }
  FileSnapshotRecord record;
  record.position.term = reader.U32();
  record.position.term_id = reader.U64();
  record.position.lsn = reader.U64();
  record.position.chain = reader.U64();
  record.created_unix_s = reader.U64();
  record.estimated_keys = reader.U64();
  for (uint32_t left = reader.U32(); left > 0 && reader.ok(); --left) {
    SnapshotFileEntry file;
    file.size = reader.U64();
    const uint8_t has_sum = reader.U8();
    const uint32_t sum = reader.U32();
    file.name = std::string(reader.LengthPrefixed());
    if (has_sum > 1 || (has_sum == 0 && sum != 0))
      return Refuse("SNAPSHOT says neither that there is a sum nor that not");
    if (has_sum == 1) file.crc32c = sum;
    if (!record.files.empty() && file.name <= record.files.back().name) return Refuse("names in SNAPSHOT do not rise");
    record.files.push_back(std::move(file));
  }
  if (!reader.ok() || reader.remaining() != 0) return Refuse("SNAPSHOT is cut off, or something follows it");
  return record;
}

}  // namespace towline
