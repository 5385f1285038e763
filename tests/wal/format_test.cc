// The formats on disk: golden bytes, and format documents that say what the code does.
//
// The golden bytes were computed outside this program.

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/bytes.h"
#include "common/checksum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/format_doc.h"
#include "tests/support/status_matchers.h"
#include "tests/wal/spool_fixture.h"
#include "wal/index.h"
#include "wal/local_frame.h"
#include "wal/recovery_table.h"
#include "wal/segment_format.h"

namespace towline::wal::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::towline::test::FormatConstants;
using ::towline::test::FormatExample;
using ::towline::test::FormatField;
using ::towline::test::FormatFields;
using ::towline::test::IsOk;
using ::towline::test::ReadGolden;

constexpr char kFrameDoc[] = "docs/formats/frame_v1.md";
constexpr char kSegmentDoc[] = "docs/formats/segment_v1.md";
constexpr char kIndexDoc[] = "docs/formats/index_v1.md";
constexpr char kRecoveryDoc[] = "docs/formats/recovery.md";

constexpr uint64_t kSalt = 0xdeadbeefcafef00d;
constexpr uint64_t kFileSize = 65536;
constexpr uint64_t kChain = 0xbba8871ea61918cd;
const LogEnd kBefore{41, 3, 0x1122334455667788, 1700000000000000};
const LogEnd kEnd{42, 3, kChain, 1700000000000123};

std::shared_ptr<FrameGroup> ExampleGroup() {
  GroupBuilder builder(kBefore);
  builder.Add(RecordType::kBatch, 3, 1700000000000123, "hello, log", Crc32c("hello, log"));
  return builder.Finish();
}

SegmentHeader ExampleHeader() {
  SegmentHeader header;
  header.cluster_id = kClusterId;
  header.generation = 1;
  header.before = kBefore;
  header.salt = kSalt;
  header.file_size = kFileSize;
  return header;
}

SegmentFooter ExampleFooter() { return {42, 1, kEnd, 584, kSalt}; }

// The whole file of the example.
std::string ExampleFile() {
  const std::string golden = ReadGolden("tests/golden/segment_v1.hex");
  std::string file = golden.substr(0, 584);
  file.resize(kFileSize - 512, '\0');
  return file + golden.substr(584);
}

// The little-endian number in the field that a document describes.
uint64_t Field(const std::map<std::string, FormatField>& fields, const std::string& name, absl::string_view bytes,
               uint64_t from = 0) {
  const FormatField field = fields.at(name);
  uint64_t value = 0;
  for (uint64_t i = field.size; i > 0; --i) {
    value = value << 8 | static_cast<uint8_t>(bytes[from + field.offset + i - 1]);
  }
  return value;
}

// --- Frame ---

TEST(FrameFormatTest, GoldenBytes) {
  const std::string golden = ReadGolden("tests/golden/frame_v1.hex");
  const std::shared_ptr<FrameGroup> group = ExampleGroup();
  FillLocalPart(41, kSalt, group->bytes.data());
  EXPECT_EQ(group->bytes, golden);
  EXPECT_EQ(group->after, kEnd);
  EXPECT_EQ(FormatExample(kFrameDoc), golden);

  LocalFrame frame;
  ASSERT_EQ(CheckFrame(golden, kSalt, &frame), FrameCheck::kValid);
  EXPECT_EQ(frame.stamp, 41u);
  EXPECT_EQ(frame.size, golden.size());
  EXPECT_EQ(frame.end(), kEnd);
  EXPECT_EQ(frame.frame.payload, "hello, log");
  EXPECT_EQ(CheckFrame(golden, kSalt + 1, &frame), FrameCheck::kNoFrame);
}

TEST(FrameFormatTest, DocumentAndCodeAgree) {
  const auto constants = FormatConstants(kFrameDoc);
  EXPECT_EQ(constants.at("magic"), kFrameMagic);
  EXPECT_EQ(constants.at("local part"), kLocalPartSize);
  EXPECT_EQ(constants.at("shipped header"), kShippedHeaderSize);
  EXPECT_EQ(constants.at("alignment"), kFrameAlignment);
  EXPECT_EQ(constants.at("largest payload"), kPayloadSizeMax);
  EXPECT_EQ(constants.at("flag: skip if unknown"), kFlagSkipIfUnknown);
  EXPECT_EQ(constants.at("type: batch"), static_cast<uint64_t>(RecordType::kBatch));
  EXPECT_EQ(constants.at("type: start of a term"), static_cast<uint64_t>(RecordType::kTermStart));
  EXPECT_EQ(constants.at("type: members"), static_cast<uint64_t>(RecordType::kMembers));
  EXPECT_THAT(towline::test::ReadSourceFile(kFrameDoc), HasSubstr("0xbba8871ea61918cd"));
}

TEST(FrameFormatTest, FieldsLieWhereTheDocumentSays) {
  const auto fields = FormatFields(kFrameDoc);
  GroupBuilder builder({0x0102030405060706, 0x11, 0x2122232425262728, 0x3132});
  builder.Add(RecordType::kMembers, 0x41424344, 0x5152535455565758, "some payload", 0x61626364);
  const std::shared_ptr<FrameGroup> group = builder.Finish();
  FillLocalPart(0x7172737475767778, kSalt, group->bytes.data());
  const absl::string_view bytes = group->bytes;
  EXPECT_EQ(Field(fields, "magic", bytes), kFrameMagic);
  EXPECT_EQ(Field(fields, "stamp", bytes), 0x7172737475767778u);
  EXPECT_EQ(Field(fields, "type", bytes), 3u);
  EXPECT_EQ(Field(fields, "flags", bytes), 0u);
  EXPECT_EQ(Field(fields, "reserved", bytes), 0u);
  EXPECT_EQ(Field(fields, "payload length", bytes), 12u);
  EXPECT_EQ(Field(fields, "term", bytes), 0x41424344u);
  EXPECT_EQ(Field(fields, "payload CRC-32C", bytes), 0x61626364u);
  EXPECT_EQ(Field(fields, "LSN", bytes), 0x0102030405060707u);
  EXPECT_EQ(Field(fields, "commit time", bytes), 0x5152535455565758u);
  EXPECT_EQ(Field(fields, "previous chain", bytes), 0x2122232425262728u);
  std::string covered(bytes.substr(8, 48));
  ByteWriter(&covered).U64(kSalt);
  EXPECT_EQ(Field(fields, "header CRC-32C", bytes), Crc32c(covered));
  EXPECT_EQ(fields.size(), 12u);
}

// --- Segment ---

TEST(SegmentFormatTest, GoldenBytes) {
  const std::string golden = ReadGolden("tests/golden/segment_v1.hex");
  ASSERT_EQ(golden.size(), 512u + 72 + 512);
  EXPECT_EQ(EncodeSegmentHeader(ExampleHeader()), golden.substr(0, 512));
  EXPECT_EQ(golden.substr(512, 72), ReadGolden("tests/golden/frame_v1.hex"));
  EXPECT_EQ(EncodeSegmentFooter(ExampleFooter()), golden.substr(584));
  EXPECT_EQ(FormatExample(kSegmentDoc), golden.substr(0, 96));

  SegmentHeader header;
  ASSERT_THAT(DecodeSegmentHeader(golden.substr(0, 512), &header), IsOk());
  EXPECT_EQ(header.cluster_id, kClusterId);
  EXPECT_EQ(header.generation, 1u);
  EXPECT_EQ(header.before, kBefore);
  EXPECT_EQ(header.salt, kSalt);
  EXPECT_EQ(header.file_size, kFileSize);
  SegmentFooter footer;
  ASSERT_THAT(DecodeSegmentFooter(golden.substr(584), &footer), IsOk());
  EXPECT_EQ(footer.first_lsn, 42u);
  EXPECT_EQ(footer.records, 1u);
  EXPECT_EQ(footer.end, kEnd);
  EXPECT_EQ(footer.end_offset, 584u);
  EXPECT_EQ(footer.salt, kSalt);
}

// The example is a segment that a node of its cluster can open.
TEST(SegmentFormatTest, ASpoolOpensTheGoldenSegment) {
  SimFileSystem fs;
  fs.SetContents(SegmentPath(42), ExampleFile());
  fs.SetContents(IndexPath(42), ReadGolden("tests/golden/index_v1.hex"));
  RecoveryInputs inputs = Inputs(42);
  inputs.base = {3, 7, 41, 0x1122334455667788};
  Node node(fs);
  ASSERT_THAT(node.Open(SmallOptions(), inputs), IsOk());
  EXPECT_EQ(node.report.row, "newest_footer");
  EXPECT_EQ(node.spool->end(), kEnd);
  TOWLINE_ASSERT_OK_AND_ASSIGN(const std::vector<ReadRecord> records, ReadAll(*node.spool, 42));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].payload, "hello, log");
}

TEST(SegmentFormatTest, DocumentAndCodeAgree) {
  const auto constants = FormatConstants(kSegmentDoc);
  EXPECT_EQ(constants.at("header magic"), kSegmentMagic);
  EXPECT_EQ(constants.at("footer magic"), kFooterMagic);
  EXPECT_EQ(constants.at("format version"), kSegmentVersion);
  EXPECT_EQ(constants.at("sector"), kSectorSize);
  EXPECT_EQ(constants.at("smallest segment"), kSegmentBytesMin);
}

TEST(SegmentFormatTest, FieldsLieWhereTheDocumentSays) {
  const auto fields = FormatFields(kSegmentDoc);
  const std::string header = EncodeSegmentHeader(ExampleHeader());
  EXPECT_EQ(Field(fields, "header: magic", header), kSegmentMagic);
  EXPECT_EQ(Field(fields, "header: format version", header), 1u);
  EXPECT_EQ(header.substr(fields.at("header: cluster_id").offset, fields.at("header: cluster_id").size), kClusterId);
  EXPECT_EQ(Field(fields, "header: generation", header), 1u);
  EXPECT_EQ(Field(fields, "before: LSN", header), kBefore.lsn);
  EXPECT_EQ(Field(fields, "before: chain", header), kBefore.chain);
  EXPECT_EQ(Field(fields, "before: term", header), kBefore.term);
  EXPECT_EQ(Field(fields, "before: commit time", header), static_cast<uint64_t>(kBefore.commit_time_us));
  EXPECT_EQ(Field(fields, "header: salt", header), kSalt);
  EXPECT_EQ(Field(fields, "header: file size", header), kFileSize);
  EXPECT_EQ(Field(fields, "header: CRC-32C", header), Crc32c(header.substr(0, 508)));
  const std::string footer = EncodeSegmentFooter(ExampleFooter());
  EXPECT_EQ(Field(fields, "footer: magic", footer), kFooterMagic);
  EXPECT_EQ(Field(fields, "footer: format version", footer), 1u);
  EXPECT_EQ(Field(fields, "footer: first LSN", footer), 42u);
  EXPECT_EQ(Field(fields, "footer: records", footer), 1u);
  EXPECT_EQ(Field(fields, "end: LSN", footer), 42u);
  EXPECT_EQ(Field(fields, "end: chain", footer), kChain);
  EXPECT_EQ(Field(fields, "end: term", footer), 3u);
  EXPECT_EQ(Field(fields, "end: commit time", footer), static_cast<uint64_t>(kEnd.commit_time_us));
  EXPECT_EQ(Field(fields, "footer: end offset", footer), 584u);
  EXPECT_EQ(Field(fields, "footer: salt", footer), kSalt);
  EXPECT_EQ(Field(fields, "footer: CRC-32C", footer), Crc32c(footer.substr(0, 508)));
}

TEST(SegmentFormatTest, AnotherVersionIsRefusedByName) {
  std::string sector = EncodeSegmentHeader(ExampleHeader());
  sector[8] = 2;  // and its checksum, if it has one there, is not ours to judge
  SegmentHeader header;
  EXPECT_THAT(DecodeSegmentHeader(sector, &header).message(), HasSubstr("version 2"));
  EXPECT_THAT(DecodeSegmentHeader(sector, &header).message(), HasSubstr("version 1"));
}

TEST(SegmentFormatTest, NamesAreParsedStrictly) {
  const auto kind = [](absl::string_view name) { return ParseFileName(name).kind; };
  EXPECT_EQ(ParseFileName("00000000000000000042.seg").number, 42u);
  EXPECT_EQ(ParseFileName("18446744073709551615.seg").number, UINT64_MAX);
  EXPECT_EQ(kind("00000000000000000042.seg"), FileKind::kSegment);
  EXPECT_EQ(kind("00000000000000000042.idx"), FileKind::kIndex);
  EXPECT_EQ(kind("spare-7.seg"), FileKind::kSpare);
  EXPECT_EQ(kind("tmp-7.seg"), FileKind::kTmp);
  EXPECT_EQ(kind("tmp-42.idx"), FileKind::kTmp);
  for (const char* name :
       {"", ".seg", "42.seg", "0000000000000000042.seg", "000000000000000000042.seg", "18446744073709551616.seg",
        "+0000000000000000042.seg", "0000000000000000004x.seg", "00000000000000000042.seg.bak", "spare-.seg",
        "spare-x.seg", "spare-7.idx", "tmp-.seg", "lost+found", "00000000000000000042.SEG"}) {
    EXPECT_EQ(kind(name), FileKind::kOther) << name;
  }
  EXPECT_EQ(SegmentFileName(42), "00000000000000000042.seg");
  EXPECT_EQ(IndexFileName(42), "00000000000000000042.idx");
  EXPECT_EQ(kind(SpareFileName(3)), FileKind::kSpare);
  EXPECT_EQ(kind(TmpFileName(3)), FileKind::kTmp);
  EXPECT_EQ(kind(TmpIndexFileName(3)), FileKind::kTmp);
}

// --- Index ---

TEST(IndexFormatTest, GoldenBytes) {
  const std::string golden = ReadGolden("tests/golden/index_v1.hex");
  const IndexOwner owner{42, 42, kSalt, 584};
  const IndexEntries expected = {{42, 1700000000000123, 512, kBefore.chain}};
  EXPECT_EQ(EncodeIndex(owner, expected), golden);
  EXPECT_EQ(FormatExample(kIndexDoc), golden);
  IndexEntries entries;
  std::string what;
  ASSERT_TRUE(DecodeIndex(golden, owner, &entries, &what)) << what;
  EXPECT_EQ(entries, expected);
}

TEST(IndexFormatTest, DocumentAndCodeAgree) {
  const auto constants = FormatConstants(kIndexDoc);
  EXPECT_EQ(constants.at("magic"), kIndexMagic);
  EXPECT_EQ(constants.at("format version"), kIndexVersion);
  EXPECT_EQ(constants.at("header"), kIndexHeaderSize);
  EXPECT_EQ(constants.at("entry"), kIndexEntrySize);
}

TEST(IndexFormatTest, FieldsLieWhereTheDocumentSays) {
  const auto fields = FormatFields(kIndexDoc);
  const std::string bytes = EncodeIndex({10, 40, kSalt, 4096}, {{10, 100, 512, 1}, {20, 200, 1024, 2}});
  EXPECT_EQ(Field(fields, "magic", bytes), kIndexMagic);
  EXPECT_EQ(Field(fields, "format version", bytes), 1u);
  EXPECT_EQ(Field(fields, "entries", bytes), 2u);
  EXPECT_EQ(Field(fields, "first LSN", bytes), 10u);
  EXPECT_EQ(Field(fields, "last LSN", bytes), 40u);
  EXPECT_EQ(Field(fields, "salt", bytes), kSalt);
  EXPECT_EQ(Field(fields, "CRC-32C of the entries", bytes), Crc32c(bytes.substr(48)));
  EXPECT_EQ(Field(fields, "CRC-32C of the header", bytes), Crc32c(bytes.substr(0, 44)));
  EXPECT_EQ(Field(fields, "entry: LSN", bytes, 80), 20u);
  EXPECT_EQ(Field(fields, "entry: commit time", bytes, 80), 200u);
  EXPECT_EQ(Field(fields, "entry: offset", bytes, 80), 1024u);
  EXPECT_EQ(Field(fields, "entry: previous chain", bytes, 80), 2u);
}

// --- Recovery ---

// Rows of the document's tables, by the name in their first cell: the verdict's first word.
std::map<std::string, std::string> DocumentedRows() {
  std::map<std::string, std::string> rows;
  for (absl::string_view line : absl::StrSplit(towline::test::ReadSourceFile(kRecoveryDoc), '\n')) {
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    if (cells.size() != 5 || cells[1].size() < 5 || cells[1][1] != '`') continue;
    rows[cells[1].substr(2, cells[1].size() - 4)] = cells[3];
  }
  return rows;
}

TEST(RecoveryFormatTest, DocumentAndTablesAgree) {
  const std::map<std::string, std::string> documented = DocumentedRows();
  EXPECT_EQ(documented.size(), LogTable().size() + FileTable().size());
  for (const LogRow& row : LogTable()) {
    ASSERT_THAT(documented, Contains(Key(row.name)));
    const std::string& verdict = documented.at(row.name);
    switch (row.verdict) {
      case LogVerdict::kAccept:
        EXPECT_EQ(verdict, " accept ");
        break;
      case LogVerdict::kCreateFirst:
        EXPECT_THAT(verdict, HasSubstr("create the first"));
        break;
      case LogVerdict::kCreateNext:
        EXPECT_THAT(verdict, HasSubstr("create the next"));
        break;
      case LogVerdict::kCutTail:
        EXPECT_THAT(verdict, HasSubstr("quarantine"));
        break;
      case LogVerdict::kCorrupt:
        EXPECT_THAT(verdict, HasSubstr("refuse"));
        break;
    }
  }
  for (const FileRow& row : FileTable()) {
    ASSERT_THAT(documented, Contains(Key(row.name)));
    const auto removed = HasSubstr("removed");
    if (row.verdict == FileVerdict::kRemove) {
      EXPECT_THAT(documented.at(row.name), removed);
    } else {
      EXPECT_THAT(documented.at(row.name), Not(removed));
    }
  }
}

}  // namespace
}  // namespace towline::wal::test
