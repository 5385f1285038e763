// Protobuf messages as JSON, in the form that all of our tools and HTTP pages use.
//
// Rules, by the type of the field, so that a new field needs no code:
//   names                 as in the proto file, snake_case, in its order
//   integers              numbers, 64-bit ones too; fixed64 is an id: 16 lower-case hex digits (a JSON reader that uses
//                         doubles would lose bits of it)
//   enums                 lower_snake_case without the type's prefix: SLOT_STATE_ACTIVE -> "active"
//   absent message, or absent `optional` field   null
//   oneof                 only the member that is set
//   repeated, map         [], {} when empty; map keys sorted
//   bytes                 a string if it is UTF-8, else base64 under <name>_base64

#ifndef TOWLINE_CLIENT_PROTO_JSON_H_
#define TOWLINE_CLIENT_PROTO_JSON_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

#include "nlohmann/json.hpp"

namespace towline {

// Keeps the order of insertion.
using Json = nlohmann::ordered_json;

Json ProtoToJson(const google::protobuf::Message& message);

// Sets object[name] to `bytes`, or object[name + "_base64"] if they are not UTF-8.
void SetJsonBytes(Json& object, const std::string& name, absl::string_view bytes);

// JSON text; `indent` < 0 puts it on one line. Never throws: broken UTF-8 is replaced.
std::string JsonText(const Json& json, int indent = -1);

// 16 lower-case hex digits.
std::string HexId(uint64_t id);

bool IsValidUtf8(absl::string_view text);

}  // namespace towline

#endif  // TOWLINE_CLIENT_PROTO_JSON_H_
