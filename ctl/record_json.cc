#include "ctl/record_json.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"

#include "ctl/ranges.h"

namespace towline::ctl {
namespace {

bool Touches(const v1::Operation& operation, absl::string_view prefix, const std::string& prefix_end) {
  switch (operation.kind_case()) {
    case v1::Operation::kPut:
      return absl::StartsWith(operation.put().key(), prefix);
    case v1::Operation::kDelete:
      return absl::StartsWith(operation.delete_().key(), prefix);
    case v1::Operation::kDeleteRange: {
      const v1::DeleteRange& range = operation.delete_range();
      const bool begins_before_end = prefix_end.empty() || range.begin() < prefix_end;
      return begins_before_end && (range.end().empty() || absl::string_view(range.end()) > prefix);
    }
    default:
      return false;
  }
}

}  // namespace

Json RecordJson(uint64_t lsn, uint64_t term, uint64_t commit_time_us, uint64_t chain, const v1::Change& change) {
  Json record = Json::object();
  record["lsn"] = lsn;
  record["term"] = term;
  record["commit_time_us"] = commit_time_us;
  record["chain"] = HexId(chain);
  switch (change.kind_case()) {
    case v1::Change::kBatch: {
      record["type"] = "batch";
      Json batch = ProtoToJson(change.batch());
      record["operations"] = std::move(batch["operations"]);
      record["request_id"] = std::move(batch["request_id"]);
      break;
    }
    case v1::Change::kTermStart:
      record["type"] = "term_start";
      record["term_start"] = ProtoToJson(change.term_start());
      break;
    case v1::Change::kMembers: {
      record["type"] = "members";
      Json members = ProtoToJson(change.members());
      record["members"] = std::move(members["members"]);
      record["min_replicas"] = std::move(members["min_replicas"]);
      break;
    }
    case v1::Change::KIND_NOT_SET:
      record["type"] = "unknown";
      break;
  }
  return record;
}

bool KeepPrefix(absl::string_view prefix, v1::Change* change) {
  if (!change->has_batch()) return false;
  const std::string prefix_end = PrefixEnd(prefix);
  auto* operations = change->mutable_batch()->mutable_operations();
  int kept = 0;
  for (int i = 0; i < operations->size(); ++i) {
    if (!Touches(operations->Get(i), prefix, prefix_end)) continue;
    if (kept != i) operations->SwapElements(kept, i);
    ++kept;
  }
  operations->DeleteSubrange(kept, operations->size() - kept);
  return kept > 0;
}

}  // namespace towline::ctl
