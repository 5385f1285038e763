// Writes the pieces of an RDB stream into byte strings.

#ifndef TOWLINE_STORE_RDB_WRITER_H_
#define TOWLINE_STORE_RDB_WRITER_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace towline {

// Each function appends to *out.
void RdbAppendLength(uint64_t length, std::string* out);
void RdbAppendString(absl::string_view text, std::string* out);
void RdbAppendAux(absl::string_view name, absl::string_view value, std::string* out);
void RdbAppendSelectDb(uint64_t db, std::string* out);
void RdbAppendResizeDb(uint64_t keys, uint64_t expires, std::string* out);
// `expire_at_ms` 0 = never.
void RdbAppendEntry(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, std::string* out);
// `crc` is the CRC-64 of everything before the EOF opcode.
void RdbAppendEof(uint64_t crc, std::string* out);

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_WRITER_H_
