// Reads format documents and golden bytes, so that tests can hold them against the code.
//
// Paths are relative to the repository, which is the working directory of every test.

#ifndef TOWLINE_TESTS_SUPPORT_FORMAT_DOC_H_
#define TOWLINE_TESTS_SUPPORT_FORMAT_DOC_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace towline::test {

// A file of the repository. Ends the test program if there is none.
std::string ReadSourceFile(const std::string& path);

// Bytes written as hex digits, with blanks anywhere between bytes; '#' starts a comment up to the end of the line.
std::string ParseHex(absl::string_view text);

// Bytes of a file such as "tests/golden/control_v1.hex".
std::string ReadGolden(const std::string& path);

// The rows "| name | value |" below the heading "## Constants", values decimal or with 0x.
std::map<std::string, uint64_t> FormatConstants(const std::string& document_path);

// The rows "| offset | size | field | ..." of all tables of a document whose first two cells are numbers: field name
// to {offset, size}.
struct FormatField {
  uint64_t offset = 0;
  uint64_t size = 0;

  friend bool operator==(const FormatField&, const FormatField&) = default;
};
std::map<std::string, FormatField> FormatFields(const std::string& document_path);

// Bytes of the first block of a document that is fenced as ```hex.
std::string FormatExample(const std::string& document_path);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_FORMAT_DOC_H_
