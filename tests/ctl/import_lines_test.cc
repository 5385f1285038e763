#include "ctl/import_lines.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace towline::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Result = LineReader::Result;

// Hands out `text` in pieces of `piece` bytes.
LineReader::Read Pieces(std::string text, size_t piece) {
  return [text, piece, done = size_t{0}](char* buffer, size_t size) mutable -> int64_t {
    const size_t count = std::min({piece, size, text.size() - done});
    text.copy(buffer, count, done);
    done += count;
    return static_cast<int64_t>(count);
  };
}

std::vector<std::string> AllLines(const std::string& text, size_t piece, size_t line_size_max = 1000) {
  LineReader reader(Pieces(text, piece), line_size_max, 0, 0);
  std::vector<std::string> lines;
  for (Result result = reader.Next(); result != Result::kEnd; result = reader.Next()) {
    lines.push_back(result == Result::kTooLong ? "TOO LONG" : std::string(reader.line()));
  }
  EXPECT_EQ(reader.offset(), text.size());
  EXPECT_EQ(reader.line_number(), lines.size());
  return lines;
}

TEST(LineReader, SplitsTheSameWayWhateverTheChunks) {
  for (size_t piece = 1; piece < 12; ++piece) {
    EXPECT_THAT(AllLines("one\n\nthree\nlast", piece), ElementsAre("one", "", "three", "last"));
    EXPECT_THAT(AllLines("one\n", piece), ElementsAre("one"));
    EXPECT_THAT(AllLines("", piece), ElementsAre());
    EXPECT_THAT(AllLines("\n", piece), ElementsAre(""));
  }
}

TEST(LineReader, LongLinesAreSkippedAndTheNextOnesAreRead) {
  for (size_t piece = 1; piece < 12; ++piece) {
    EXPECT_THAT(AllLines("ab\nthis is long\ncd\nalso long", piece, 4), ElementsAre("ab", "TOO LONG", "cd", "TOO LONG"));
  }
}

TEST(LineReader, OffsetsAreBehindTheLine) {
  LineReader reader(Pieces("ab\ncd", 100), 100, 10, 7);
  EXPECT_EQ(reader.Next(), Result::kLine);
  EXPECT_EQ(reader.offset(), 13u);
  EXPECT_EQ(reader.line_number(), 8u);
  EXPECT_EQ(reader.Next(), Result::kLine);
  EXPECT_EQ(reader.offset(), 15u);
}

TEST(LineReader, ReadErrorsAreNotTheEnd) {
  LineReader reader([](char*, size_t) -> int64_t { return -1; }, 100, 0, 0);
  EXPECT_EQ(reader.Next(), Result::kError);
}

TEST(Format, GoesByExtensionThenByTheFirstByte) {
  EXPECT_EQ(DetectFormat("a.jsonl", "k\tv"), ImportFormat::kJsonLines);
  EXPECT_EQ(DetectFormat("a.TSV", "{"), ImportFormat::kTsv);
  EXPECT_EQ(DetectFormat("-", " \n{\"key\""), ImportFormat::kJsonLines);
  EXPECT_EQ(DetectFormat("-", "key\tvalue"), ImportFormat::kTsv);
  EXPECT_EQ(DetectFormat("-", ""), ImportFormat::kTsv);
}

TEST(JsonLine, TextAndBase64) {
  v1::Put put;
  ASSERT_TRUE(ParseJsonLine(R"({"key":"a\u0000b","value":"gr\u00fc\u00df","expire_at_ms":12})", &put).ok());
  EXPECT_EQ(put.key(), std::string("a\0b", 3));
  EXPECT_EQ(put.value(), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(put.expire_at_ms(), 12u);
  ASSERT_TRUE(ParseJsonLine(R"( {"value_base64":"/wA=","key_base64":"/w==","modified_lsn":3} )", &put).ok());
  EXPECT_EQ(put.key(), "\xff");
  EXPECT_EQ(put.value(), std::string("\xff\0", 2));
  EXPECT_EQ(put.expire_at_ms(), 0u);
}

TEST(JsonLine, EverythingElseIsRefusedWithAReason) {
  v1::Put put;
  const auto refused = [&put](const std::string& line) {
    const absl::Status status = ParseJsonLine(line, &put);
    return status.ok() ? "accepted" : GetErrorInfo(status).message;
  };
  EXPECT_THAT(refused(R"({"key":"a"})"), HasSubstr("\"value\""));
  EXPECT_THAT(refused(R"({"value":"a"})"), HasSubstr("\"key\""));
  EXPECT_THAT(refused(R"({"key":"","value":"a"})"), HasSubstr("empty"));
  EXPECT_THAT(refused(R"({"key":"a","value":"b")"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused(R"({"key":"a","value":"b"}})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused("{\"key\":\"\xff\",\"value\":\"b\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused(R"({"key":"a","key_base64":"YQ==","value":"b"})"), HasSubstr("twice"));
  EXPECT_THAT(refused(R"({"key":"a","value_base64":"!"})"), HasSubstr("not base64"));
  EXPECT_THAT(refused(R"({"key":"a","value":"b","ttl_ms":5})"), HasSubstr("ttl_ms"));
  EXPECT_THAT(refused(R"({"key":"a","value":"b","expire_at_ms":-5})"), HasSubstr("expire_at_ms"));
  EXPECT_THAT(refused(R"({"key":1,"value":"b"})"), HasSubstr("\"key\""));
  EXPECT_THAT(refused(R"({"key":{"a":"b"},"value":"b"})"), HasSubstr("an object"));
  EXPECT_THAT(refused(R"({"key":["a"],"value":"b"})"), HasSubstr("an array"));
  EXPECT_THAT(refused(R"(["key"])"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refused(R"("key")"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refused("null"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refused("key\tvalue"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused(R"({"value":"b","key":")" + std::string(65537, 'k') + R"("})"), HasSubstr("65537"));
}

TEST(JsonLine, DeepNestingDoesNotCrash) {
  v1::Put put;
  EXPECT_FALSE(ParseJsonLine(std::string(1'000'000, '['), &put).ok());
  EXPECT_FALSE(ParseJsonLine("{\"key\":" + std::string(1'000'000, '{'), &put).ok());
}

TEST(TsvLine, TheFirstTabSeparatesAndBytesStayAsTheyAre) {
  v1::Put put;
  ASSERT_TRUE(ParseTsvLine("k\tv\tw\\n\xff", &put).ok());
  EXPECT_EQ(put.key(), "k");
  EXPECT_EQ(put.value(), "v\tw\\n\xff");
  ASSERT_TRUE(ParseTsvLine("k\t", &put).ok());
  EXPECT_EQ(put.value(), "");
  EXPECT_FALSE(ParseTsvLine("no tab", &put).ok());
  EXPECT_FALSE(ParseTsvLine("\tvalue", &put).ok());
  EXPECT_FALSE(ParseTsvLine(std::string(65537, 'k') + "\tv", &put).ok());
}

}  // namespace
}  // namespace towline::ctl
