#include "wal/index.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/check.h"
#include "common/checksum.h"
#include "wal/segment_format.h"

namespace towline::wal {
namespace {

constexpr size_t kHeaderCrcOffset = kIndexHeaderSize - sizeof(uint32_t);

bool Refuse(std::string* what, absl::string_view why) {
  *what = std::string(why);
  return false;
}

// Whether `entries` could be an index of `owner`, as far as can be told without the segment.
bool IsPlausible(const IndexEntries& entries, const IndexOwner& owner) {
  if (entries.empty()) return owner.last_lsn < owner.first_lsn;
  if (entries.front().lsn != owner.first_lsn || entries.front().offset != kFramesStart) return false;
  for (size_t i = 0; i < entries.size(); ++i) {
    const IndexEntry& entry = entries[i];
    if (entry.lsn > owner.last_lsn || entry.offset >= owner.end_offset || entry.offset % kFrameAlignment != 0) {
      return false;
    }
    if (i == 0) continue;
    const IndexEntry& before = entries[i - 1];
    if (entry.lsn <= before.lsn || entry.offset <= before.offset || entry.commit_time_us < before.commit_time_us) {
      return false;
    }
  }
  return true;
}

}  // namespace

void AddToIndex(const ShippedHeader& header, uint64_t offset, uint64_t interval, IndexEntries* entries) {
  if (!entries->empty() && offset < entries->back().offset + interval) return;
  entries->push_back({header.lsn, header.commit_time_us, offset, header.prev_chain});
}

namespace {

IndexEntries::const_iterator Above(const IndexEntries& entries, Lsn lsn) {
  return std::upper_bound(entries.begin(), entries.end(), lsn,
                          [](Lsn value, const IndexEntry& entry) { return value < entry.lsn; });
}

}  // namespace

const IndexEntry& FloorOfLsn(const IndexEntries& entries, Lsn lsn) {
  const auto above = Above(entries, lsn);
  TOWLINE_CHECK(above != entries.begin());
  return *std::prev(above);
}

const IndexEntry* EntryBehind(const IndexEntries& entries, Lsn lsn) {
  const auto above = Above(entries, lsn);
  return above == entries.end() ? nullptr : &*above;
}

const IndexEntry& FloorOfTime(const IndexEntries& entries, int64_t time_us) {
  TOWLINE_CHECK(!entries.empty());
  const auto at_or_above =
      std::lower_bound(entries.begin(), entries.end(), time_us,
                       [](const IndexEntry& entry, int64_t value) { return entry.commit_time_us < value; });
  return at_or_above == entries.begin() ? entries.front() : *std::prev(at_or_above);
}

std::string EncodeIndex(const IndexOwner& owner, const IndexEntries& entries) {
  std::string body;
  body.reserve(entries.size() * kIndexEntrySize);
  ByteWriter entry_writer(&body);
  for (const IndexEntry& entry : entries) {
    entry_writer.U64(entry.lsn);
    entry_writer.U64(static_cast<uint64_t>(entry.commit_time_us));
    entry_writer.U64(entry.offset);
    entry_writer.U64(entry.prev_chain);
  }
  std::string bytes;
  bytes.reserve(kIndexHeaderSize + body.size());
  ByteWriter writer(&bytes);
  writer.U64(kIndexMagic);
  writer.U32(kIndexVersion);
  writer.U32(static_cast<uint32_t>(entries.size()));
  writer.U64(owner.first_lsn);
  writer.U64(owner.last_lsn);
  writer.U64(owner.salt);
  writer.U32(Crc32c(body));
  writer.U32(Crc32c(bytes));
  writer.Bytes(body);
  return bytes;
}

bool DecodeIndex(absl::string_view bytes, const IndexOwner& owner, IndexEntries* entries, std::string* what) {
  entries->clear();
  ByteReader reader(bytes);
  const uint64_t magic = reader.U64();
  const uint32_t version = reader.U32();
  const uint32_t count = reader.U32();
  const Lsn first_lsn = reader.U64();
  const Lsn last_lsn = reader.U64();
  const uint64_t salt = reader.U64();
  const uint32_t body_crc = reader.U32();
  const uint32_t header_crc = reader.U32();
  if (!reader.ok() || magic != kIndexMagic) return Refuse(what, "index has no header");
  if (version != kIndexVersion) return Refuse(what, absl::StrCat("index has version ", version));
  if (header_crc != Crc32c(bytes.substr(0, kHeaderCrcOffset))) return Refuse(what, "index header fails its checksum");
  if (first_lsn != owner.first_lsn || last_lsn != owner.last_lsn || salt != owner.salt) {
    return Refuse(what, "index belongs to another segment");
  }
  const absl::string_view body = bytes.substr(kIndexHeaderSize);
  if (body.size() != count * kIndexEntrySize) {
    return Refuse(what, absl::StrCat("index of ", count, " entries has ", body.size(), " bytes of them"));
  }
  if (body_crc != Crc32c(body)) return Refuse(what, "index entries fail their checksum");
  entries->reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    IndexEntry entry;
    entry.lsn = reader.U64();
    entry.commit_time_us = static_cast<int64_t>(reader.U64());
    entry.offset = reader.U64();
    entry.prev_chain = reader.U64();
    entries->push_back(entry);
  }
  if (IsPlausible(*entries, owner)) return true;
  entries->clear();
  return Refuse(what, "index entries contradict the segment");
}

}  // namespace towline::wal
