// The bytes of a file snapshot's record: docs/formats/file_snapshot_v1.md.

#include "primary/file_snapshot_format.h"

#include <string>

#include "common/checksum.h"
#include "gtest/gtest.h"
#include "tests/support/format_doc.h"
#include "tests/support/status_matchers.h"

namespace towline::test {
namespace {

constexpr char kDoc[] = "docs/formats/file_snapshot_v1.md";
constexpr char kGolden[] = "tests/golden/file_snapshot_v1.hex";

FileSnapshotRecord Example() {
  FileSnapshotRecord record;
  record.position = {2, 0xa2, 500, 0xc500};
  record.created_unix_s = 1'700'000'000;
  record.estimated_keys = 40'000;
  record.files = {{"000007.sst", 64 << 20, 0x11223344}, {"MANIFEST-000004", 5000, std::nullopt}};
  return record;
}

// With its checksum put right.
std::string Sealed(std::string bytes) {
  bytes.resize(bytes.size() - 4);
  const uint32_t crc = Crc32c(bytes);
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(crc >> (8 * i)));
  return bytes;
}

TEST(FileSnapshotFormatTest, DocumentGoldenBytesAndCodeAgree) {
  const auto constants = FormatConstants(kDoc);
  EXPECT_EQ(constants.at("magic"), kFileSnapshotMagic);
  EXPECT_EQ(constants.at("format version"), kFileSnapshotVersion);
  EXPECT_EQ(constants.at("fixed part") + 4, EncodeFileSnapshot({}).size());
  EXPECT_EQ(FormatExample(kDoc), ReadGolden(kGolden));
  EXPECT_EQ(EncodeFileSnapshot(Example()), ReadGolden(kGolden));
  EXPECT_THAT(DecodeFileSnapshot(ReadGolden(kGolden)), IsOkAndHolds(Example()));
  EXPECT_THAT(DecodeFileSnapshot(EncodeFileSnapshot({})), IsOkAndHolds(FileSnapshotRecord()));
}

TEST(FileSnapshotFormatTest, EveryCutTailAndBitIsRefused) {
  const std::string whole = EncodeFileSnapshot(Example());
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_THAT(DecodeFileSnapshot(whole.substr(0, size)), ReasonIs("snapshot_damaged")) << size;
  }
  EXPECT_THAT(DecodeFileSnapshot(whole + std::string(1, '\0')), ReasonIs("snapshot_damaged"));
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_THAT(DecodeFileSnapshot(bytes), ReasonIs("snapshot_damaged")) << bit;
  }
}

TEST(FileSnapshotFormatTest, WhatIsWellSealedMayBeWrongAllTheSame) {
  const std::string whole = EncodeFileSnapshot(Example());
  for (size_t size = 4; size < whole.size(); ++size) {
    ASSERT_THAT(DecodeFileSnapshot(Sealed(whole.substr(0, size))), ReasonIs("snapshot_damaged")) << size;
  }
  EXPECT_THAT(DecodeFileSnapshot(Sealed(whole + "x")), ReasonIs("snapshot_damaged"));
  for (const size_t offset : {0, 8, 56, 68}) {  // magic, version, number of files, whether there is a sum
    std::string bytes = whole;
    bytes[offset] = 9;
    EXPECT_THAT(DecodeFileSnapshot(Sealed(bytes)), ReasonIs("snapshot_damaged")) << offset;
  }
  FileSnapshotRecord unordered = Example();
  std::swap(unordered.files[0], unordered.files[1]);
  EXPECT_THAT(DecodeFileSnapshot(EncodeFileSnapshot(unordered)), ReasonIs("snapshot_damaged"));
}

}  // namespace
}  // namespace towline::test
