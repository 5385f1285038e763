#include "store/snapshot_head.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/names.h"
#include "store/rdb_format.h"
#include "store/rdb_writer.h"

namespace towline {
namespace {

constexpr size_t kHex64Size = 16;
constexpr absl::string_view kSnapshotVersion = "1";

std::string Hex64(uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

bool ParseHex64(absl::string_view text, uint64_t* value) {
  return text.size() == kHex64Size && absl::SimpleHexAtoi(text, value);
}

// term@start:id, comma between entries.
std::string EncodeHistory(const History& history) {
  std::string out;
  for (const HistoryEntry& entry : history) {
    absl::StrAppend(&out, out.empty() ? "" : ",", entry.term, "@", entry.start_lsn, ":", Hex64(entry.term_id));
  }
  return out;
}

bool ParseHistory(absl::string_view text, History* history) {
  history->clear();
  if (text.empty()) return true;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    HistoryEntry entry;
    const std::vector<absl::string_view> halves = absl::StrSplit(part, '@');
    if (halves.size() != 2 || !absl::SimpleAtoi(halves[0], &entry.term)) return false;
    const std::vector<absl::string_view> rest = absl::StrSplit(halves[1], ':');
    if (rest.size() != 2 || !absl::SimpleAtoi(rest[0], &entry.start_lsn)) return false;
    if (!ParseHex64(rest[1], &entry.term_id)) return false;
    history->push_back(entry);
  }
  return true;
}

// The cluster id, then the term id.
bool ParseReplId(absl::string_view text, SnapshotMeta* meta) {
  if (text.size() < kHex64Size) return false;
  const size_t cluster_size = text.size() - kHex64Size;
  meta->cluster_id = ClusterId(text.substr(0, cluster_size));
  return ParseHex64(text.substr(cluster_size), &meta->position.term_id);
}

}  // namespace

absl::Status SnapshotMalformed(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "snapshot_malformed",
                   absl::StrCat("the snapshot stream is malformed: ", what), "start the snapshot again");
}

std::string EncodeSnapshotHead(const SnapshotMeta& meta) {
  std::string out(kRdbMagic);
  RdbAppendAux("redis-ver", "7.0.15", &out);
  RdbAppendAux("redis-bits", "64", &out);
  RdbAppendAux(kAuxCreated, absl::StrCat(meta.created_unix_s), &out);
  RdbAppendAux("used-mem", "0", &out);
  RdbAppendAux("repl-stream-db", "0", &out);
  RdbAppendAux(kAuxReplId, absl::StrCat(meta.cluster_id, Hex64(meta.position.term_id)), &out);
  RdbAppendAux(kAuxReplOffset, absl::StrCat(meta.position.lsn), &out);
  RdbAppendAux(kAuxVersion, kSnapshotVersion, &out);
  RdbAppendAux(kAuxTerm, absl::StrCat(meta.position.term), &out);
  RdbAppendAux(kAuxChain, Hex64(meta.position.chain), &out);
  RdbAppendAux(kAuxHistory, EncodeHistory(meta.history), &out);
  RdbAppendAux(kAuxNode, meta.node_id, &out);
  RdbAppendAux(kAuxKeys, absl::StrCat(meta.estimated_keys), &out);
  RdbAppendSelectDb(0, &out);
  RdbAppendResizeDb(meta.estimated_keys, 0, &out);
  return out;
}

absl::Status ReadSnapshotHeadField(absl::string_view name, absl::string_view value, SnapshotMeta* meta) {
  bool ok = true;
  if (name == kAuxVersion && value != kSnapshotVersion) {
    return MakeError(absl::StatusCode::kUnimplemented, "snapshot_version_unsupported",
                     absl::StrCat("the snapshot has version ", Printable(value), ", and ", kSnapshotVersion,
                                  " is the only one known here"));
  }
  if (name == kAuxCreated) ok = absl::SimpleAtoi(value, &meta->created_unix_s);
  if (name == kAuxReplId) ok = ParseReplId(value, meta);
  if (name == kAuxReplOffset) ok = absl::SimpleAtoi(value, &meta->position.lsn);
  if (name == kAuxTerm) ok = absl::SimpleAtoi(value, &meta->position.term);
  if (name == kAuxChain) ok = ParseHex64(value, &meta->position.chain);
  if (name == kAuxHistory) ok = ParseHistory(value, &meta->history);
  if (name == kAuxNode) meta->node_id = std::string(value);
  if (name == kAuxKeys) ok = absl::SimpleAtoi(value, &meta->estimated_keys);
  return ok ? absl::OkStatus() : SnapshotMalformed(absl::StrCat("AUX field ", name, " is ", Printable(value)));
}

}  // namespace towline
