#include "store/change_reader.h"

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "store/state_format.h"

namespace towline {
namespace {

// Wire types of protobuf.
constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

constexpr uint64_t kFieldNumberMax = (1u << 29) - 1;
constexpr size_t kShortVarintSizeMax = 5;  // of tags and sizes

// One field of a message; `bytes` or `number` by its wire type.
struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;
  uint64_t value = 0;
  absl::string_view bytes;
};

// A varint that holds a tag or a size.
bool TakeShortVarint(absl::string_view* data, uint64_t* value) {
  const size_t before = data->size();
  return TakeVarint(data, value) && before - data->size() <= kShortVarintSizeMax;
}

// Takes the next field of *data; nullptr, or what is wrong.
const char* TakeField(absl::string_view* data, Field* field) {
  uint64_t tag = 0;
  if (!TakeShortVarint(data, &tag)) return "a field tag is cut short";
  const uint64_t number = tag >> 3;
  if (number == 0 || number > kFieldNumberMax) return "a field number is out of range";
  field->number = static_cast<uint32_t>(number);
  field->wire = static_cast<uint32_t>(tag & 7);
  switch (field->wire) {
    case kVarint:
      return TakeVarint(data, &field->value) ? nullptr : "a number is cut short";
    case kBytes:
      if (!TakeShortVarint(data, &field->value) || field->value > data->size()) return "a byte string is cut short";
      field->bytes = data->substr(0, field->value);
      data->remove_prefix(field->value);
      return nullptr;
    case kFixed64:
    case kFixed32: {
      const size_t size = field->wire == kFixed64 ? 8 : 4;
      if (data->size() < size) return "a fixed number is cut short";
      data->remove_prefix(size);
      return nullptr;
    }
    default:
      return "a field has an unknown wire type";
  }
}

// Reads a message whose known fields are `strings` byte strings numbered from 1 and, with `numbers`, varints after
// them.
struct Values {
  absl::string_view strings[2];
  uint64_t numbers[2] = {0, 0};
};

const char* ReadValues(absl::string_view data, uint32_t strings, uint32_t numbers, Values* out) {
  Field field;
  while (!data.empty()) {
    if (const char* problem = TakeField(&data, &field)) return problem;
    if (field.number > strings + numbers) continue;
    const bool is_string = field.number <= strings;
    if (field.wire != (is_string ? kBytes : kVarint)) return "a field has the wrong type";
    if (is_string) {
      out->strings[field.number - 1] = field.bytes;
    } else {
      out->numbers[field.number - 1 - strings] = field.value;
    }
  }
  return nullptr;
}

const char* CheckKey(absl::string_view key) {
  if (key.empty()) return "a key is empty";
  return key.size() > kKeySizeMax ? "a key is too long" : nullptr;
}

const char* ReadOperationBody(const Field& field, ChangeOperation* operation) {
  Values values;
  const auto kind = static_cast<ChangeOperation::Kind>(field.number);
  operation->kind = kind;
  const bool is_put = kind == ChangeOperation::Kind::kPut;
  const bool is_delete = kind == ChangeOperation::Kind::kDelete;
  if (const char* problem = ReadValues(field.bytes, is_delete ? 1 : 2, is_put ? 2 : 0, &values)) return problem;
  operation->key = values.strings[0];
  operation->value = values.strings[1];
  operation->expire_at_ms = values.numbers[0];
  if (kind == ChangeOperation::Kind::kDeleteRange) {
    const bool fits = operation->key.size() <= kKeySizeMax && operation->value.size() <= kKeySizeMax;
    return fits ? nullptr : "a range bound is too long";
  }
  if (is_put && values.numbers[1] != 0) return "a put has a relative expiry";
  return CheckKey(operation->key);
}

const char* ReadOperation(absl::string_view data, ChangeOperation* operation) {
  bool found = false;
  Field field;
  while (!data.empty()) {
    if (const char* problem = TakeField(&data, &field)) return problem;
    if (field.number > 4) continue;
    if (found) return "an operation has two kinds";
    if (field.wire != kBytes) return "a field has the wrong type";
    found = true;
    if (const char* problem = ReadOperationBody(field, operation)) return problem;
  }
  return found ? nullptr : "an operation has no kind that is known here";
}

const char* ReadRequestId(absl::string_view data, ChangeHead* head) {
  Values values;
  if (const char* problem = ReadValues(data, 1, 1, &values)) return problem;
  if (!ValidateName("client_id", values.strings[0]).ok()) return "a client id is not a valid name";
  if (values.numbers[0] == 0) return "a request sequence is 0";
  head->client_id = values.strings[0];
  head->sequence = values.numbers[0];
  return nullptr;
}

const char* ReadBatch(absl::string_view data, Lsn lsn, ChangeHead* head, std::vector<ChangeOperation>* operations) {
  Field field;
  while (!data.empty()) {
    if (const char* problem = TakeField(&data, &field)) return problem;
    if (field.number > 2) continue;
    if (field.wire != kBytes) return "a field has the wrong type";
    if (field.number == 1) {
      ChangeOperation& operation = operations->emplace_back();
      operation.lsn = lsn;
      if (const char* problem = ReadOperation(field.bytes, &operation)) return problem;
    } else {
      if (!head->client_id.empty()) return "a batch has two request ids";
      if (const char* problem = ReadRequestId(field.bytes, head)) return problem;
    }
  }
  return nullptr;
}

const char* ReadChangeFields(absl::string_view data, Lsn lsn, ChangeHead* head,
                             std::vector<ChangeOperation>* operations) {
  bool found = false;
  Field field;
  while (!data.empty()) {
    if (const char* problem = TakeField(&data, &field)) return problem;
    if (field.number > 3) continue;
    if (found) return "a record has two kinds";
    if (field.wire != kBytes) return "a field has the wrong type";
    found = true;
    head->kind = static_cast<ChangeKind>(field.number);
    if (head->kind != ChangeKind::kBatch) continue;
    if (const char* problem = ReadBatch(field.bytes, lsn, head, operations)) return problem;
  }
  return found ? nullptr : "a record has no kind that is known here";
}

}  // namespace

absl::Status ReadChange(absl::string_view payload, Lsn lsn, ChangeHead* head,
                        std::vector<ChangeOperation>* operations) {
  *head = ChangeHead{};
  const char* problem = ReadChangeFields(payload, lsn, head, operations);
  if (problem == nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kDataLoss, "record_malformed",
                   absl::StrCat("record ", lsn, " cannot be read: ", problem, " (", payload.size(), " bytes)"),
                   "check that all nodes run a version that knows this record");
}

}  // namespace towline
