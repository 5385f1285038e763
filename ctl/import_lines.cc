#include "ctl/import_lines.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "common/types.h"
#include "nlohmann/json.hpp"

namespace towline::ctl {
namespace {

constexpr size_t kChunkSize = 256u << 10;

absl::Status Malformed(absl::string_view why) {
  return MakeError(absl::StatusCode::kInvalidArgument, "malformed_line", why);
}

// The object of one line, taken from parser events: no tree is built.
class LineHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit LineHandler(v1::Put* put) : put_(put) {}

  bool key(string_t& name) override {
    name_ = std::move(name);
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ != 1) return Fail("the line is not a JSON object");
    if (name_ == "key") return Take(has_key_, std::move(text), put_->mutable_key());
    if (name_ == "value") return Take(has_value_, std::move(text), put_->mutable_value());
    if (name_ == "key_base64") return TakeBase64(has_key_, text, put_->mutable_key());
    if (name_ == "value_base64") return TakeBase64(has_value_, text, put_->mutable_value());
    return Unexpected("a string");
  }
  bool number_unsigned(number_unsigned_t number) override {
    if (depth_ == 1 && name_ == "expire_at_ms") {
      put_->set_expire_at_ms(number);
      return true;
    }
    if (depth_ == 1 && name_ == "modified_lsn") return true;
    return Unexpected("a number");
  }
  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return Unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return Unexpected("a number with a fraction"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool start_array(std::size_t) override { return Unexpected("an array"); }
  bool end_array() override { return true; }
  bool start_object(std::size_t) override { return ++depth_ == 1 || Unexpected("an object"); }
  bool end_object() override { return true; }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
    // The library's text repeats the input; its number is enough.
    return Fail(absl::StrCat("not valid JSON at byte ", position, " (", error.id, ")"));
  }

  absl::Status Finish() const {
    if (!error_.empty()) return Malformed(error_);
    if (depth_ == 0) return Malformed("the line is not a JSON object");
    if (!has_key_) return Malformed("\"key\" or \"key_base64\" is missing");
    if (!has_value_) return Malformed("\"value\" or \"value_base64\" is missing");
    return absl::OkStatus();
  }

 private:
  bool Fail(std::string why) {
    if (error_.empty()) error_ = std::move(why);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    if (depth_ == 0) return Fail("the line is not a JSON object");
    return Fail(absl::StrCat("\"", Printable(name_), "\" is not expected to be there or to be ", what));
  }
  bool Take(bool& has, std::string&& text, std::string* to) {
    if (std::exchange(has, true)) return Fail(absl::StrCat("\"", name_, "\" is given twice"));
    *to = std::move(text);
    return true;
  }
  bool TakeBase64(bool& has, const std::string& text, std::string* to) {
    if (std::exchange(has, true)) return Fail(absl::StrCat("\"", name_, "\" is given twice"));
    return absl::Base64Unescape(text, to) || Fail(absl::StrCat("\"", name_, "\" is not base64"));
  }

  v1::Put* const put_;
  std::string name_;
  int depth_ = 0;
  bool has_key_ = false;
  bool has_value_ = false;
  std::string error_;
};

absl::Status CheckPut(const v1::Put& put) {
  if (put.key().empty()) return Malformed("the key is empty");
  if (put.key().size() > kKeySizeMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "key_too_large",
                     absl::StrCat("the key has ", put.key().size(), " bytes; at most ", kKeySizeMax, " are allowed"));
  }
  return absl::OkStatus();
}

}  // namespace

ImportFormat DetectFormat(absl::string_view file_name, absl::string_view first_bytes) {
  for (const absl::string_view extension : {".json", ".jsonl", ".ndjson"}) {
    if (absl::EndsWithIgnoreCase(file_name, extension)) return ImportFormat::kJsonLines;
  }
  for (const absl::string_view extension : {".tsv", ".tab"}) {
    if (absl::EndsWithIgnoreCase(file_name, extension)) return ImportFormat::kTsv;
  }
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(first_bytes);
  return absl::StartsWith(text, "{") ? ImportFormat::kJsonLines : ImportFormat::kTsv;
}

absl::Status ParseJsonLine(absl::string_view line, v1::Put* put) {
  put->Clear();
  LineHandler handler(put);
  nlohmann::json::sax_parse(line.begin(), line.end(), &handler);
  TOWLINE_RETURN_IF_ERROR(handler.Finish());
  return CheckPut(*put);
}

absl::Status ParseTsvLine(absl::string_view line, v1::Put* put) {
  put->Clear();
  const size_t tab = line.find('\t');
  if (tab == absl::string_view::npos) return Malformed("there is no tab between key and value");
  put->set_key(std::string(line.substr(0, tab)));
  put->set_value(std::string(line.substr(tab + 1)));
  return CheckPut(*put);
}

LineReader::LineReader(Read read, size_t line_size_max, uint64_t offset, uint64_t line_number)
    : read_(std::move(read)), line_size_max_(line_size_max), line_number_(line_number), offset_(offset) {}

bool LineReader::Fill() {
  if (at_end_ || failed_) return false;
  buffer_.erase(0, begin_);
  begin_ = 0;
  const size_t size = buffer_.size();
  buffer_.resize(size + kChunkSize);
  const int64_t count = read_(buffer_.data() + size, kChunkSize);
  buffer_.resize(size + static_cast<size_t>(std::max<int64_t>(count, 0)));
  at_end_ = count == 0;
  failed_ = count < 0;
  return count > 0;
}

absl::string_view LineReader::Peek() {
  if (begin_ == buffer_.size()) (void)Fill();
  return absl::string_view(buffer_).substr(begin_);
}

LineReader::Result LineReader::Next() {
  bool too_long = false;
  size_t searched = 0;  // bytes behind begin_ without a line end
  size_t end = 0;
  for (;;) {
    end = buffer_.find('\n', begin_ + searched);
    if (end != std::string::npos) break;
    searched = buffer_.size() - begin_;
    if (searched > line_size_max_) {  // keep nothing of it
      too_long = true;
      offset_ += searched;
      begin_ = buffer_.size();
      searched = 0;
    }
    if (Fill()) continue;
    if (failed_) return Result::kError;
    if (begin_ == buffer_.size() && !too_long) return Result::kEnd;
    end = buffer_.size();
    break;
  }
  line_ = absl::string_view(buffer_).substr(begin_, end - begin_);
  const size_t consumed = std::min(end + 1, buffer_.size()) - begin_;
  begin_ += consumed;
  offset_ += consumed;
  ++line_number_;
  return too_long || line_.size() > line_size_max_ ? Result::kTooLong : Result::kLine;
}

}  // namespace towline::ctl
