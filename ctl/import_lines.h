// Lines of an import: splitting a stream into them and reading one.

#ifndef TOWLINE_CTL_IMPORT_LINES_H_
#define TOWLINE_CTL_IMPORT_LINES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "towline/v1/change.pb.h"

namespace towline::ctl {

enum class ImportFormat { kAuto, kJsonLines, kTsv };

// By the extension (.json, .jsonl, .ndjson; .tsv, .tab), else by the first byte that is not white space: '{' means
// JSON Lines.
ImportFormat DetectFormat(absl::string_view file_name, absl::string_view first_bytes);

// {"key" | "key_base64", "value" | "value_base64", "expire_at_ms"}; `modified_lsn` is ignored, any other name is an
// error, so that a misspelt one does not lose data.
absl::Status ParseJsonLine(absl::string_view line, v1::Put* put);

// key<TAB>value, bytes as they are: no escapes, and the value may contain tabs.
absl::Status ParseTsvLine(absl::string_view line, v1::Put* put);

// Reads lines from blocking chunks. Lines end with '\n'; the last one may lack it.
// Threads: external synchronization.
class LineReader {
 public:
  // Fills the buffer with 1 to `size` bytes; 0 = end of input, < 0 = error.
  using Read = std::function<int64_t(char* buffer, size_t size)>;

  enum class Result { kLine, kTooLong, kEnd, kError };

  LineReader(Read read, size_t line_size_max, uint64_t offset, uint64_t line_number);

  // Reads the next line into `line()`, without its end. kTooLong: the line is skipped. kError: Read failed.
  Result Next();

  absl::string_view line() const { return line_; }
  uint64_t line_number() const { return line_number_; }  // of line(), from 1
  uint64_t offset() const { return offset_; }            // behind line() and its end

  // The bytes that are read next, at least one unless the input is at its end.
  absl::string_view Peek();

 private:
  bool Fill();  // false at the end or on an error

  const Read read_;
  const size_t line_size_max_;
  std::string buffer_;
  size_t begin_ = 0;  // first byte of buffer_ that is not consumed
  absl::string_view line_;
  uint64_t line_number_;
  uint64_t offset_;
  bool at_end_ = false;
  bool failed_ = false;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_IMPORT_LINES_H_
