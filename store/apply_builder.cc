#include "store/apply_builder.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "store/request_window.h"
#include "store/state_format.h"

namespace towline {
namespace {

using Kind = ChangeOperation::Kind;

// The first eight bytes of a key; smaller keys have no greater prefix.
uint64_t KeyPrefix(absl::string_view key) {
  char bytes[8] = {};
  std::memcpy(bytes, key.data(), std::min<size_t>(key.size(), 8));
  return LoadBe64(bytes);
}

}  // namespace

absl::Status ApplyBuilder::ReadRecords(absl::Span<const ApplyRecord> records) {
  heads_.resize(records.size());
  operations_.clear();
  for (size_t i = 0; i < records.size(); ++i) {
    TOWLINE_RETURN_IF_ERROR(ReadChange(records[i].payload, records[i].position.lsn, &heads_[i], &operations_));
  }
  return absl::OkStatus();
}

// Fills refs_ with the last operation of every key, in key order: neighbours in the engine are then written one after
// the other, and a key that is written twice costs once. Not for batches with range deletes, whose order matters.
void ApplyBuilder::KeepLastPerKey() {
  refs_.clear();
  for (uint32_t i = 0; i < operations_.size(); ++i) {
    if (operations_[i].kind == Kind::kMessage) continue;
    refs_.push_back({KeyPrefix(operations_[i].key), i});
  }
  const auto key = [this](const Ref& ref) { return operations_[ref.index].key; };
  std::sort(refs_.begin(), refs_.end(), [&key](const Ref& a, const Ref& b) {
    if (a.prefix != b.prefix) return a.prefix < b.prefix;
    const int order = key(a).compare(key(b));
    return order != 0 ? order < 0 : a.index < b.index;
  });
  size_t kept = 0;
  for (size_t i = 0; i < refs_.size(); ++i) {
    const bool last =
        i + 1 == refs_.size() || refs_[i].prefix != refs_[i + 1].prefix || key(refs_[i]) != key(refs_[i + 1]);
    if (last) refs_[kept++] = refs_[i];
  }
  refs_.resize(kept);
}

void ApplyBuilder::AddOperation(const ChangeOperation& operation, StoreBatch& batch) {
  if (operation.kind == Kind::kMessage) return;
  key_.assign(1, kUserSpace);
  key_.append(operation.key.data(), operation.key.size());
  switch (operation.kind) {
    case Kind::kPut:
      value_.clear();
      AppendEnvelope(operation.lsn, operation.expire_at_ms, operation.value, &value_);
      batch.Put(key_, value_);
      if (operation.expire_at_ms != 0) expiry_.Add(operation.expire_at_ms, operation.key, batch);
      break;
    case Kind::kDelete:
      batch.Delete(key_);
      break;
    case Kind::kDeleteRange: {
      const std::string end = UserUpperBound(operation.value);
      if (key_ < end) batch.DeleteRange(key_, end);
      break;
    }
    case Kind::kMessage:
      break;
  }
}

absl::Status ApplyBuilder::Build(absl::Span<const ApplyRecord> records, StoreBatch& batch) {
  TOWLINE_RETURN_IF_ERROR(ReadRecords(records));
  TOWLINE_RETURN_IF_ERROR(expiry_.Sweep(records.size(), batch));

  const bool has_range = std::any_of(operations_.begin(), operations_.end(), [](const ChangeOperation& operation) {
    return operation.kind == Kind::kDeleteRange;
  });
  if (has_range) {
    for (const ChangeOperation& operation : operations_) AddOperation(operation, batch);
  } else {
    KeepLastPerKey();
    for (const Ref& ref : refs_) AddOperation(operations_[ref.index], batch);
  }

  RequestUpdates requests(store_, batch);
  for (size_t i = 0; i < records.size(); ++i) {
    const Lsn lsn = records[i].position.lsn;
    if (!heads_[i].client_id.empty()) requests.Add(heads_[i].client_id, heads_[i].sequence, lsn);
    TOWLINE_RETURN_IF_ERROR(requests.AfterRecord(lsn));
  }
  requests.Finish();

  batch.Put(kPositionKey, EncodePosition(records.back().position));
  return absl::OkStatus();
}

}  // namespace towline
