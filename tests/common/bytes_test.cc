#include "common/bytes.h"

#include <string>

#include "gtest/gtest.h"

namespace towline {
namespace {

TEST(BytesTest, FieldsAreLittleEndianAndWithoutGaps) {
  std::string out;
  ByteWriter writer(&out);
  writer.U8(0x01);
  writer.U16(0x0203);
  writer.U32(0x04050607);
  writer.U64(0x08090a0b0c0d0e0full);
  writer.LengthPrefixed("ab");
  EXPECT_EQ(out, std::string("\x01\x03\x02\x07\x06\x05\x04\x0f\x0e\x0d\x0c\x0b\x0a\x09\x08\x02\0\0\0ab", 21));
}

TEST(BytesTest, ReaderGivesBackWhatTheWriterPut) {
  std::string out;
  ByteWriter writer(&out);
  writer.U8(250);
  writer.U16(65000);
  writer.U32(4000000000u);
  writer.U64(~uint64_t{0});
  writer.LengthPrefixed(std::string("a\0b", 3));
  writer.Bytes("tail");

  ByteReader reader(out);
  EXPECT_EQ(reader.U8(), 250);
  EXPECT_EQ(reader.U16(), 65000);
  EXPECT_EQ(reader.U32(), 4000000000u);
  EXPECT_EQ(reader.U64(), ~uint64_t{0});
  EXPECT_EQ(reader.LengthPrefixed(), absl::string_view("a\0b", 3));
  EXPECT_EQ(reader.remaining(), 4u);
  EXPECT_EQ(reader.Bytes(4), "tail");
  EXPECT_TRUE(reader.ok());
  EXPECT_EQ(reader.remaining(), 0u);
}

TEST(BytesTest, AReadBeyondTheEndSpoilsTheReaderForGood) {
  ByteReader reader("abc");
  EXPECT_EQ(reader.U32(), 0u);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.U8(), 0);  // though three bytes were there
  EXPECT_EQ(reader.Bytes(1), "");
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.remaining(), 0u);
}

TEST(BytesTest, ALengthBeyondTheEndIsRefused) {
  std::string out;
  ByteWriter(&out).U32(0xffffffff);
  out += "abc";
  ByteReader reader(out);
  EXPECT_EQ(reader.LengthPrefixed(), "");
  EXPECT_FALSE(reader.ok());
}

TEST(BytesTest, ReadingNothingAtTheEndIsFine) {
  ByteReader reader("");
  EXPECT_EQ(reader.Bytes(0), "");
  EXPECT_TRUE(reader.ok());
}

}  // namespace
}  // namespace towline
