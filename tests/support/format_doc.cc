#include "tests/support/format_doc.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "common/check.h"
#include "common/file_system.h"

namespace towline::test {
namespace {

// The cells of a Markdown table row, or none.
std::vector<std::string> Cells(absl::string_view line) {
  if (!absl::ConsumePrefix(&line, "|") || !absl::ConsumeSuffix(&line, "|")) return {};
  std::vector<std::string> cells;
  for (absl::string_view cell : absl::StrSplit(line, '|')) cells.emplace_back(absl::StripAsciiWhitespace(cell));
  return cells;
}

bool ParseNumber(absl::string_view text, uint64_t* value) {
  return absl::StartsWith(text, "0x") ? absl::SimpleHexAtoi(text, value) : absl::SimpleAtoi(text, value);
}

}  // namespace

std::string ReadSourceFile(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(*PosixFileSystem(), path);
  TOWLINE_CHECK(text.ok());
  return *text;
}

std::string ParseHex(absl::string_view text) {
  std::string digits;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    for (const char c : line.substr(0, line.find('#'))) {
      if (absl::ascii_isspace(static_cast<unsigned char>(c))) continue;
      TOWLINE_CHECK(absl::ascii_isxdigit(static_cast<unsigned char>(c)));
      digits.push_back(c);
    }
  }
  TOWLINE_CHECK(digits.size() % 2 == 0);
  return absl::HexStringToBytes(digits);
}

std::string ReadGolden(const std::string& path) { return ParseHex(ReadSourceFile(path)); }

std::map<std::string, uint64_t> FormatConstants(const std::string& document_path) {
  std::map<std::string, uint64_t> constants;
  bool inside = false;
  for (absl::string_view line : absl::StrSplit(ReadSourceFile(document_path), '\n')) {
    if (absl::StartsWith(line, "## ")) inside = line == "## Constants";
    const std::vector<std::string> cells = Cells(line);
    uint64_t value = 0;
    if (inside && cells.size() == 2 && ParseNumber(cells[1], &value)) constants[cells[0]] = value;
  }
  return constants;
}

std::map<std::string, FormatField> FormatFields(const std::string& document_path) {
  std::map<std::string, FormatField> fields;
  for (absl::string_view line : absl::StrSplit(ReadSourceFile(document_path), '\n')) {
    const std::vector<std::string> cells = Cells(line);
    FormatField field;
    if (cells.size() < 3 || !ParseNumber(cells[0], &field.offset) || !ParseNumber(cells[1], &field.size)) continue;
    fields[cells[2]] = field;
  }
  return fields;
}

std::string FormatExample(const std::string& document_path) {
  const std::string text = ReadSourceFile(document_path);
  const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits("```hex\n", 1));
  TOWLINE_CHECK(parts.size() == 2);
  return ParseHex(parts[1].substr(0, parts[1].find("```")));
}

}  // namespace towline::test
