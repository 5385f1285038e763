#include "client/proto_json.h"

#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/descriptor.h"

namespace towline {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// SlotState -> SLOT_STATE_
std::string EnumPrefix(const std::string& type_name) {
  std::string prefix;
  for (size_t i = 0; i < type_name.size(); ++i) {
    if (i > 0 && absl::ascii_isupper(static_cast<unsigned char>(type_name[i]))) prefix.push_back('_');
    prefix.push_back(absl::ascii_toupper(static_cast<unsigned char>(type_name[i])));
  }
  prefix.push_back('_');
  return prefix;
}

Json EnumJson(const FieldDescriptor& field, int number) {
  const EnumValueDescriptor* value = field.enum_type()->FindValueByNumber(number);
  if (value == nullptr) return number;  // from a newer peer
  absl::string_view name = value->name();
  const std::string prefix = EnumPrefix(field.enum_type()->name());
  if (absl::StartsWith(name, prefix)) name.remove_prefix(prefix.size());
  return absl::AsciiStrToLower(name);
}

// One value; `index` < 0 means a singular field.
Json ValueJson(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  const bool repeated = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return repeated ? reflection.GetRepeatedInt32(message, &field, index) : reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return repeated ? reflection.GetRepeatedInt64(message, &field, index) : reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return repeated ? reflection.GetRepeatedUInt32(message, &field, index) : reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64: {
      const uint64_t value =
          repeated ? reflection.GetRepeatedUInt64(message, &field, index) : reflection.GetUInt64(message, &field);
      if (field.type() == FieldDescriptor::TYPE_FIXED64) return HexId(value);
      return value;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return repeated ? reflection.GetRepeatedDouble(message, &field, index) : reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return repeated ? reflection.GetRepeatedFloat(message, &field, index) : reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL:
      return repeated ? reflection.GetRepeatedBool(message, &field, index) : reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumJson(field, repeated ? reflection.GetRepeatedEnumValue(message, &field, index)
                                      : reflection.GetEnumValue(message, &field));
    case FieldDescriptor::CPPTYPE_STRING:
      return repeated ? reflection.GetRepeatedString(message, &field, index) : reflection.GetString(message, &field);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ProtoToJson(repeated ? reflection.GetRepeatedMessage(message, &field, index)
                                  : reflection.GetMessage(message, &field));
  }
  return nullptr;
}

Json MapJson(const Message& message, const FieldDescriptor& field) {
  const FieldDescriptor& key_field = *field.message_type()->map_key();
  const FieldDescriptor& value_field = *field.message_type()->map_value();
  const Reflection& reflection = *message.GetReflection();
  std::map<std::string, Json> sorted;
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    const Json key = ValueJson(entry, key_field, -1);
    sorted[key.is_string() ? key.get<std::string>() : JsonText(key)] = ValueJson(entry, value_field, -1);
  }
  Json object = Json::object();
  for (auto& [key, value] : sorted) object[key] = std::move(value);
  return object;
}

// A list of byte strings stays one list: base64 for all as soon as one is not UTF-8.
void AddRepeatedBytes(Json& object, const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  const int size = reflection.FieldSize(message, &field);
  bool valid = true;
  for (int i = 0; i < size; ++i) valid = valid && IsValidUtf8(reflection.GetRepeatedString(message, &field, i));
  Json list = Json::array();
  for (int i = 0; i < size; ++i) {
    const std::string bytes = reflection.GetRepeatedString(message, &field, i);
    list.push_back(valid ? bytes : absl::Base64Escape(bytes));
  }
  object[valid ? field.name() : absl::StrCat(field.name(), "_base64")] = std::move(list);
}

void AddField(Json& object, const Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  const bool is_bytes = field.type() == FieldDescriptor::TYPE_BYTES;
  if (field.is_map()) {
    object[field.name()] = MapJson(message, field);
  } else if (field.is_repeated() && is_bytes) {
    AddRepeatedBytes(object, message, field);
  } else if (field.is_repeated()) {
    Json list = Json::array();
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) list.push_back(ValueJson(message, field, i));
    object[field.name()] = std::move(list);
  } else if (field.has_presence() && !reflection.HasField(message, &field)) {
    if (field.real_containing_oneof() == nullptr) object[field.name()] = nullptr;
  } else if (is_bytes) {
    SetJsonBytes(object, field.name(), reflection.GetString(message, &field));
  } else {
    object[field.name()] = ValueJson(message, field, -1);
  }
}

}  // namespace

Json ProtoToJson(const Message& message) {
  Json object = Json::object();
  const Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) AddField(object, message, *descriptor.field(i));
  return object;
}

void SetJsonBytes(Json& object, const std::string& name, absl::string_view bytes) {
  if (IsValidUtf8(bytes)) {
    object[name] = std::string(bytes);
  } else {
    object[name + "_base64"] = absl::Base64Escape(bytes);
  }
}

std::string JsonText(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string HexId(uint64_t id) { return absl::StrFormat("%016x", id); }

bool IsValidUtf8(absl::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char* const end = p + text.size();
  while (p < end) {
    if (*p < 0x80) {
      ++p;
      continue;
    }
    // Shortest forms only, no surrogates, at most U+10FFFF: the second byte's range depends on the first byte.
    int more = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (*p >= 0xC2 && *p <= 0xDF) {
      more = 1;
    } else if (*p >= 0xE0 && *p <= 0xEF) {
      more = 2;
      if (*p == 0xE0) low = 0xA0;
      if (*p == 0xED) high = 0x9F;
    } else if (*p >= 0xF0 && *p <= 0xF4) {
      more = 3;
      if (*p == 0xF0) low = 0x90;
      if (*p == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (end - p <= more) return false;
    if (p[1] < low || p[1] > high) return false;
    for (int i = 2; i <= more; ++i) {
      if ((p[i] & 0xC0u) != 0x80u) return false;
    }
    p += more + 1;
  }
  return true;
}

}  // namespace towline
