#include "primary/write_intake.h"

#include <google/protobuf/io/coded_stream.h>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/checksum.h"
#include "common/error.h"
#include "common/names.h"
#include "towline/v1/change.pb.h"
#include "towline/v1/kv_service.pb.h"

namespace towline {
namespace {

using google::protobuf::io::CodedOutputStream;

// Field tags of Change.batch, Batch.operations and Batch.request_id (docs/formats/frame_v1.md, "Payload").
constexpr uint8_t kTagBatch = 1 << 3 | 2;
constexpr uint8_t kTagOperations = 1 << 3 | 2;
constexpr uint8_t kTagRequestId = 2 << 3 | 2;

absl::Status Invalid(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

absl::Status CheckKey(absl::string_view what, absl::string_view key) {
  if (key.empty() || key.size() > kKeySizeMax) {
    return Invalid("invalid_key", absl::StrCat(what, " has ", key.size(), " bytes; a key has 1 to ", kKeySizeMax));
  }
  return absl::OkStatus();
}

absl::Status CheckPut(const v1::Put& put, uint64_t now_ms) {
  TOWLINE_RETURN_IF_ERROR(CheckKey("key", put.key()));
  if (put.ttl_ms() == 0) return absl::OkStatus();
  if (put.expire_at_ms() != 0) return Invalid("invalid_ttl", "both ttl_ms and expire_at_ms are set");
  if (put.ttl_ms() > std::numeric_limits<int64_t>::max() - now_ms) {
    return Invalid("invalid_ttl", absl::StrCat("ttl_ms ", put.ttl_ms(), " overflows the time"));
  }
  return absl::OkStatus();
}

absl::Status CheckRange(const v1::DeleteRange& range) {
  if (range.begin().size() > kKeySizeMax || range.end().size() > kKeySizeMax) {
    return Invalid("invalid_key", absl::StrCat("a bound has more than ", kKeySizeMax, " bytes"));
  }
  if (!range.end().empty() && range.begin() >= range.end()) {
    return Invalid("invalid_range", "begin is not below end");
  }
  return absl::OkStatus();
}

absl::Status CheckOperation(const v1::Operation& op, uint64_t now_ms) {
  switch (op.kind_case()) {
    case v1::Operation::kPut:
      return CheckPut(op.put(), now_ms);
    case v1::Operation::kDelete:
      return CheckKey("key", op.delete_().key());
    case v1::Operation::kDeleteRange:
      return CheckRange(op.delete_range());
    case v1::Operation::kMessage:
      return CheckKey("topic", op.message().topic());
    case v1::Operation::KIND_NOT_SET:
      break;
  }
  return Invalid("empty_operation", "an operation has no kind");
}

absl::Status AddConditions(const v1::WriteRequest& request, WriteRecord* record) {
  record->conditions.reserve(static_cast<size_t>(request.conditions_size()));
  for (const v1::Condition& condition : request.conditions()) {
    TOWLINE_RETURN_IF_ERROR(CheckKey("condition key", condition.key()));
    KeyCondition out;
    out.key = condition.key();
    if (condition.test_case() == v1::Condition::kExists) {
      out.exists = condition.exists();
    } else if (condition.test_case() == v1::Condition::kModifiedLsn && condition.modified_lsn() != 0) {
      out.modified_lsn = condition.modified_lsn();
    } else {
      return Invalid("invalid_condition", "a condition has no test, or modified_lsn 0");
    }
    record->conditions.push_back(out);
  }
  return absl::OkStatus();
}

// Operations as they go into the log: a TTL is replaced by the time. `logged` owns the replaced ones.
struct OperationsToLog {
  std::vector<const v1::Operation*> operations;
  std::vector<std::unique_ptr<v1::Operation>> logged;
};

OperationsToLog ResolveTtls(const v1::WriteRequest& request, uint64_t now_ms) {
  OperationsToLog out;
  out.operations.reserve(static_cast<size_t>(request.operations_size()));
  for (const v1::Operation& op : request.operations()) {
    if (op.kind_case() == v1::Operation::kPut && op.put().ttl_ms() != 0) {
      auto copy = std::make_unique<v1::Operation>(op);
      copy->mutable_put()->set_expire_at_ms(now_ms + op.put().ttl_ms());
      copy->mutable_put()->clear_ttl_ms();
      out.operations.push_back(copy.get());
      out.logged.push_back(std::move(copy));
    } else {
      out.operations.push_back(&op);
    }
  }
  return out;
}

// Writes Change{batch{operations, request_id}} without building the message, so that values are copied once.
absl::Status EncodePayload(const v1::WriteRequest& request, uint64_t now_ms, uint64_t record_bytes_max,
                           std::string* payload) {
  const OperationsToLog to_log = ResolveTtls(request, now_ms);
  uint64_t batch_size = 0;
  for (const v1::Operation* op : to_log.operations) {
    const size_t size = op->ByteSizeLong();
    batch_size += 1 + CodedOutputStream::VarintSize64(size) + size;
  }
  if (request.has_request_id()) {
    const size_t size = request.request_id().ByteSizeLong();
    batch_size += 1 + CodedOutputStream::VarintSize64(size) + size;
  }
  const uint64_t total = 1 + CodedOutputStream::VarintSize64(batch_size) + batch_size;
  if (total > record_bytes_max) {
    return MakeError(absl::StatusCode::kInvalidArgument, "record_too_large",
                     absl::StrCat("the record has ", total, " bytes; limits.record_bytes is ", record_bytes_max),
                     "split the write, or raise limits.record_bytes on the primary");
  }
  payload->resize(total);
  auto* at = reinterpret_cast<uint8_t*>(payload->data());
  *at++ = kTagBatch;
  at = CodedOutputStream::WriteVarint64ToArray(batch_size, at);
  for (const v1::Operation* op : to_log.operations) {
    *at++ = kTagOperations;
    at = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(op->GetCachedSize()), at);
    at = op->SerializeWithCachedSizesToArray(at);
  }
  if (request.has_request_id()) {
    *at++ = kTagRequestId;
    at = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(request.request_id().GetCachedSize()), at);
    request.request_id().SerializeWithCachedSizesToArray(at);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BuildWriteRecord(const v1::WriteRequest& request, uint64_t now_ms, uint64_t record_bytes_max,
                              WriteRecord* record) {
  if (request.operations().empty()) return Invalid("empty_write", "a write has no operations");
  record->type = wal::RecordType::kBatch;
  for (const v1::Operation& op : request.operations()) TOWLINE_RETURN_IF_ERROR(CheckOperation(op, now_ms));
  TOWLINE_RETURN_IF_ERROR(AddConditions(request, record));
  if (request.has_request_id()) {
    TOWLINE_RETURN_IF_ERROR(ValidateName("request_id.client_id", request.request_id().client_id()));
    if (request.request_id().sequence() == 0) {
      return Invalid("invalid_request_id", "request_id.sequence is 0; it starts at 1");
    }
    record->request = RequestKey{request.request_id().client_id(), request.request_id().sequence()};
  }
  TOWLINE_RETURN_IF_ERROR(EncodePayload(request, now_ms, record_bytes_max, &record->payload));
  record->payload_crc = Crc32c(record->payload);
  return absl::OkStatus();
}

void BuildDeleteRecord(absl::string_view key, WriteRecord* record) {
  v1::Change change;
  change.mutable_batch()->add_operations()->mutable_delete_()->set_key(key.data(), key.size());
  record->type = wal::RecordType::kBatch;
  record->payload = change.SerializeAsString();
  record->payload_crc = Crc32c(record->payload);
}

}  // namespace towline
