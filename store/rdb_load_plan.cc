#include "store/rdb_load_plan.h"

#include <algorithm>
#include <google/protobuf/io/coded_stream.h>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "store/state_store.h"

namespace towline {
namespace {

using google::protobuf::io::CodedOutputStream;

// Tells which cluster slot has how many keys; nothing is lost without it.
constexpr absl::string_view kHint = "slot_info";

// A field of type bytes or message: all of ours have tags of one byte.
uint64_t FieldSize(uint64_t size) { return 1 + CodedOutputStream::VarintSize64(size) + size; }

std::string CountsText(const std::map<std::string, uint64_t>& counts) {
  return absl::StrJoin(
      counts, ", ", [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.second, " ", entry.first); });
}

}  // namespace

uint64_t EncodedPutSize(absl::string_view key, absl::string_view value, uint64_t expire_at_ms) {
  uint64_t put = FieldSize(key.size());
  if (!value.empty()) put += FieldSize(value.size());
  if (expire_at_ms != 0) put += 1 + CodedOutputStream::VarintSize64(expire_at_ms);
  return FieldSize(FieldSize(put));
}

uint64_t EncodedRecordSize(uint64_t operations_bytes) { return FieldSize(operations_bytes); }

void RdbLoadPlan::Take(const RdbEvent& event, const RdbPlace& place) {
  if (event.kind == RdbEvent::Kind::kOther) {
    if (event.value == kHint) return;
    auto& counts = event.number == 0 ? without_key_ : databases_[place.db].other_types;
    ++counts[std::string(event.value)];
    return;
  }
  if (event.kind != RdbEvent::Kind::kEntry) return;
  RdbLoadCounts& counts = databases_[place.db];
  if (IsExpired(event)) {
    ++counts.expired;
    return;
  }
  ++counts.keys;
  counts.bytes += event.key.size() + event.value.size();
  if (event.key.empty()) ++counts.empty_keys;
  if (event.key.size() > kKeySizeMax) ++counts.long_keys;
  const uint64_t record = EncodedRecordSize(EncodedPutSize(event.key, event.value, event.expire_at_ms));
  counts.largest_record = std::max(counts.largest_record, record);
  if (record > options_.record_bytes_max) ++counts.large_records;
}

std::map<std::string, uint64_t> RdbLoadPlan::SkippedTypes() const {
  std::map<std::string, uint64_t> skipped = without_key_;
  for (const auto& [kind, count] : counts().other_types) skipped[kind] += count;
  return skipped;
}

uint64_t RdbLoadPlan::keys_elsewhere() const {
  uint64_t keys = 0;
  for (const auto& [db, counts] : databases_) keys += db == db_ ? 0 : counts.keys + counts.expired;
  return keys;
}

absl::Status RdbLoadPlan::Decide() {
  std::vector<std::string> with_keys;
  std::vector<std::string> hindrances;
  std::vector<std::string> advice;
  for (const auto& [db, counts] : databases_) {
    if (counts.keys + counts.expired == 0) continue;
    with_keys.push_back(absl::StrCat("database ", db, ": ", counts.keys + counts.expired));
    db_ = db;
  }
  if (options_.db) {
    db_ = *options_.db;
    if (databases_.find(db_) == databases_.end() && !databases_.empty()) {
      hindrances.push_back(absl::StrCat("database ", db_, " holds no keys"));
    }
  } else if (with_keys.size() > 1) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "not_loadable",
                     absl::StrCat("the file holds keys in ", with_keys.size(), " databases, and Towline has one (",
                                  absl::StrJoin(with_keys, ", "), ")"),
                     "choose one with --db N; nothing was written");
  }
  const RdbLoadCounts& counts = databases_[db_];
  const auto skipped = SkippedTypes();
  if (!skipped.empty() && !options_.skip_other_types) {
    hindrances.push_back(absl::StrCat("it holds other types than strings (", CountsText(skipped), ")"));
    advice.push_back("leave other types out with --skip-other-types");
  }
  if (counts.empty_keys > 0) hindrances.push_back(absl::StrCat(counts.empty_keys, " keys have 0 bytes"));
  if (counts.long_keys > 0) {
    hindrances.push_back(absl::StrCat(counts.long_keys, " keys have more than ", kKeySizeMax, " bytes"));
  }
  if (counts.empty_keys + counts.long_keys > 0) advice.push_back("rename such keys at the source");
  if (counts.large_records > 0) {
    hindrances.push_back(absl::StrCat(counts.large_records, " records would have more than ", options_.record_bytes_max,
                                      " bytes, the largest ", counts.largest_record));
    advice.push_back("raise limits.record_bytes on the primary, up to 8MiB, or split such values at the source");
  }
  if (hindrances.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "not_loadable",
                   absl::StrCat("the file cannot be loaded: ", absl::StrJoin(hindrances, "; ")),
                   absl::StrCat(absl::StrJoin(advice, "; "), advice.empty() ? "" : "; ", "nothing was written"));
}

}  // namespace towline
