#include "replica/install_journal.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/error.h"
#include "common/history.h"
#include "common/names.h"

namespace towline {
namespace {

absl::Status Refuse(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "install_damaged", absl::StrCat("install journal: ", what),
                   "the snapshot is loaded again");
}

void PutPosition(ByteWriter& writer, const Position& position) {
  writer.U32(position.term);
  writer.U64(position.term_id);
  writer.U64(position.lsn);
  writer.U64(position.chain);
}

Position TakePosition(ByteReader& reader) {
  Position position;
  position.term = reader.U32();
  position.term_id = reader.U64();
  position.lsn = reader.U64();
  position.chain = reader.U64();
  return position;
}

absl::Status Validate(const InstallRecord& record) {
  const SnapshotCursor& cursor = record.point.cursor;
  if (record.phase != InstallPhase::kLoading && record.phase != InstallPhase::kReplaying) {
    return Refuse("unknown phase");
  }
  if (record.form != SnapshotForm::kRdb && record.form != SnapshotForm::kFiles) return Refuse("unknown form");
  if (record.incarnation == 0 || record.snapshot_id == 0) return Refuse("an identity is 0");
  if (record.point.meta.cluster_id.size() != kClusterIdSize) return Refuse("the cluster id is none");
  if (!IsValidHistory(record.point.meta.history)) return Refuse("the history does not rise");
  if (record.read.lsn < record.point.meta.position.lsn) return Refuse("it was read before its own position");
  if ((cursor.sequence == 0) != cursor.last_key.empty()) return Refuse("the cursor has no key, or no chunk");
  if (cursor.last_key.size() > kKeySizeMax || record.point.indexed_key > cursor.last_key) {
    return Refuse("a key is too long, or behind the cursor");
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeInstall(const InstallRecord& record) {
  const SnapshotMeta& meta = record.point.meta;
  const SnapshotCursor& cursor = record.point.cursor;
  std::string out;
  ByteWriter writer(&out);
  writer.U8(static_cast<uint8_t>(record.phase));
  writer.U8(static_cast<uint8_t>(record.form));
  writer.U16(0);
  writer.U32(static_cast<uint32_t>(meta.history.size()));
  writer.U64(record.incarnation);
  writer.U64(record.snapshot_id);
  writer.U64(record.common_lsn);
  writer.U64(record.estimated_bytes);
  writer.U64(meta.estimated_keys);
  writer.U64(meta.created_unix_s);
  writer.U64(record.started_unix_ms);
  writer.U64(record.resumes);
  writer.U64(record.received_bytes);
  writer.U64(cursor.sequence);
  writer.U64(cursor.keys);
  writer.U64(cursor.bytes);
  writer.U64(cursor.crc64);
  writer.U64(cursor.digest.low);
  writer.U64(cursor.digest.high);
  PutPosition(writer, meta.position);
  PutPosition(writer, record.read);
  writer.LengthPrefixed(meta.cluster_id);
  writer.LengthPrefixed(meta.node_id);
  writer.LengthPrefixed(record.reason);
  writer.LengthPrefixed(cursor.last_key);
  writer.LengthPrefixed(record.point.indexed_key);
  for (const HistoryEntry& entry : meta.history) {
    writer.U32(entry.term);
    writer.U64(entry.start_lsn);
    writer.U64(entry.term_id);
  }
  return out;
}

absl::StatusOr<InstallRecord> DecodeInstall(uint32_t version, absl::string_view payload) {
  if (version == 0 || version > kInstallVersion) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "install_version",
        absl::StrCat("the install journal has format version ", version, ", this program reads ", kInstallVersion),
        "the snapshot is loaded again");
  }
  InstallRecord record;
  SnapshotMeta& meta = record.point.meta;
  SnapshotCursor& cursor = record.point.cursor;
  ByteReader reader(payload);
  record.phase = static_cast<InstallPhase>(reader.U8());
  record.form = static_cast<SnapshotForm>(reader.U8());
  const bool reserved = reader.U16() != 0 || (version < 2 && record.form != SnapshotForm::kRdb);
  const uint32_t entries = reader.U32();
  record.incarnation = reader.U64();
  record.snapshot_id = reader.U64();
  record.common_lsn = reader.U64();
  record.estimated_bytes = reader.U64();
  meta.estimated_keys = reader.U64();
  meta.created_unix_s = reader.U64();
  record.started_unix_ms = reader.U64();
  record.resumes = reader.U64();
  record.received_bytes = reader.U64();
  cursor.sequence = reader.U64();
  cursor.keys = reader.U64();
  cursor.bytes = reader.U64();
  cursor.crc64 = reader.U64();
  cursor.digest.low = reader.U64();
  cursor.digest.high = reader.U64();
  meta.position = TakePosition(reader);
  record.read = TakePosition(reader);
  meta.cluster_id = std::string(reader.LengthPrefixed());
  meta.node_id = std::string(reader.LengthPrefixed());
  record.reason = std::string(reader.LengthPrefixed());
  cursor.last_key = std::string(reader.LengthPrefixed());
  record.point.indexed_key = std::string(reader.LengthPrefixed());
  for (uint32_t left = entries; left > 0 && reader.ok(); --left) {
    HistoryEntry entry;
    entry.term = reader.U32();
    entry.start_lsn = reader.U64();
    entry.term_id = reader.U64();
    meta.history.push_back(entry);
  }
  if (!reader.ok() || reader.remaining() != 0 || reserved) return Refuse("cut off, or something follows it");
  TOWLINE_RETURN_IF_ERROR(Validate(record));
  return record;
}

InstallJournal::InstallJournal(FileSystem& fs, const std::string& generation_directory)
    : file_(fs, generation_directory, "install", kInstallMagic, kInstallCapacity) {}

absl::StatusOr<InstallRecord> InstallJournal::Load() {
  TwoCopyImage image;
  TOWLINE_ASSIGN_OR_RETURN(const TwoCopyState state, file_.Load(&image));
  if (state == TwoCopyState::kAbsent) return absl::NotFoundError("there is no install journal");
  if (state == TwoCopyState::kDamaged) return Refuse("both copies are damaged");
  TOWLINE_RETURN_IF_ERROR(file_.Settle());
  return DecodeInstall(image.version, image.payload);
}

absl::Status InstallJournal::Save(const InstallRecord& record) {
  return file_.Save(kInstallVersion, EncodeInstall(record));
}

}  // namespace towline
