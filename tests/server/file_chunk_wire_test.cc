// Pieces of files on the wire: the bytes that Protobuf makes of the same message, without a copy of the data.

#include "server/file_chunk_wire.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace towline::test {
namespace {

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

v1::FetchSnapshotResponse Piece(size_t size) {
  v1::FetchSnapshotResponse message;
  v1::SnapshotFileChunk* chunk = message.mutable_file_chunk();
  chunk->set_snapshot_id(0x0123456789abcdef);
  chunk->set_file(3);
  chunk->set_offset(1ull << 40);
  chunk->set_crc32c(0xfedcba98);
  for (size_t i = 0; i < size; ++i) chunk->mutable_data()->push_back(static_cast<char>(i * 7));
  return message;
}

TEST(FileChunkWireTest, ThePieceIsWhatProtobufWrites) {
  const FileChunkWire wire;
  // Around the sizes at which a length takes a byte more.
  for (const size_t size : {0, 1, 99, 100, 101, 127, 128, 16'000, 16'383, 16'384, 1 << 20, (2 << 20) + 1}) {
    v1::FetchSnapshotResponse message = Piece(size);
    const std::string expected = message.SerializeAsString();
    EXPECT_TRUE(BytesOf(wire.Encode(&message)) == expected) << size;
  }
  v1::FetchSnapshotResponse first;  // of a first file: fields that are 0 are not there
  first.mutable_file_chunk()->set_data("abc");
  EXPECT_EQ(BytesOf(wire.Encode(&first)), std::string("\x22\x05\x2a\x03"
                                                      "abc"));
}

TEST(FileChunkWireTest, OtherMessagesAreWhatProtobufWrites) {
  const FileChunkWire wire;
  v1::FetchSnapshotResponse header;
  header.mutable_header()->set_snapshot_id(7);
  header.mutable_header()->add_files()->set_name("000012.sst");
  v1::FetchSnapshotResponse chunk;
  chunk.mutable_chunk()->set_data(std::string(70'000, 'x'));
  v1::FetchSnapshotResponse end;
  end.mutable_end()->set_keys(12);
  for (v1::FetchSnapshotResponse* message : {&header, &chunk, &end}) {
    const std::string expected = message->SerializeAsString();
    EXPECT_TRUE(BytesOf(wire.Encode(message)) == expected) << message->kind_case();
    EXPECT_EQ(message->SerializeAsString(), expected);  // it was copied
  }
}

TEST(FileChunkWireTest, DataIsSentFromWhereItIsAndItsMemoryServesAgain) {
  const FileChunkWire wire;
  v1::FetchSnapshotResponse message = Piece(1 << 20);
  const char* const memory = message.file_chunk().data().data();
  {
    const grpc::ByteBuffer encoded = wire.Encode(&message);
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(encoded.Dump(&slices).ok());
    ASSERT_EQ(slices.size(), 2u);
    EXPECT_EQ(reinterpret_cast<const char*>(slices[1].begin()), memory);

    v1::FetchSnapshotResponse next;
    wire.Reuse(&next);  // it is still on its way
    EXPECT_TRUE(next.file_chunk().data().empty());
  }
  v1::FetchSnapshotResponse next;
  wire.Reuse(&next);
  EXPECT_EQ(next.file_chunk().data().data(), memory);

  v1::FetchSnapshotResponse full = Piece(10);  // has memory
  const char* const own = full.file_chunk().data().data();
  { const grpc::ByteBuffer encoded = wire.Encode(&next); }
  wire.Reuse(&full);
  EXPECT_EQ(full.file_chunk().data().data(), own);
}

// `bytes` in slices of `size`, as a connection may bring them.
grpc::ByteBuffer InSlices(const std::string& bytes, size_t size) {
  std::vector<grpc::Slice> slices;
  for (size_t i = 0; i < bytes.size(); i += size) slices.emplace_back(bytes.substr(i, size));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

TEST(SnapshotMessageTest, APieceIsReadHoweverItIsCut) {
  for (const size_t size : {1, 2, 200, 5000}) {
    const v1::FetchSnapshotResponse sent = Piece(size);
    v1::FetchSnapshotResponse expected = sent;
    expected.mutable_file_chunk()->clear_data();
    for (const size_t cut : {1, 7, 22, 23, 40, 255, 256, 300, 10'000}) {
      v1::FetchSnapshotResponse message;
      message.mutable_end();  // of an earlier one
      absl::Cord data("earlier");
      ASSERT_TRUE(DecodeSnapshotMessage(InSlices(sent.SerializeAsString(), cut), &message, &data))
          << size << " " << cut;
      EXPECT_EQ(message.SerializeAsString(), expected.SerializeAsString()) << size << " " << cut;
      EXPECT_TRUE(data == sent.file_chunk().data()) << size << " " << cut;
    }
  }
}

TEST(SnapshotMessageTest, DataIsNotCopied) {
  v1::FetchSnapshotResponse message = Piece(1 << 20);
  const char* const memory = message.file_chunk().data().data();
  const FileChunkWire wire;
  v1::FetchSnapshotResponse received;
  absl::Cord data;
  ASSERT_TRUE(DecodeSnapshotMessage(wire.Encode(&message), &received, &data));
  ASSERT_EQ(data.size(), size_t{1} << 20);
  EXPECT_EQ(data.chunk_begin()->data(), memory);
}

TEST(SnapshotMessageTest, OtherEncodingsAndMessagesAreReadToo) {
  const std::string data(300, 'x');
  // The data first, then the offset (3: 5); the data twice, of which the last counts; a field that nobody knows (9: 1).
  const std::string length("\xac\x02");
  const std::string with_data = "\x2a" + length + data;
  const std::vector<std::string> chunks = {with_data + "\x18\x05", "\x18\x05\x2a\x01y" + with_data,
                                           "\x48\x01\x18\x05" + with_data};
  for (const std::string& chunk : chunks) {
    std::string bytes = "\x22";
    bytes.push_back(static_cast<char>(chunk.size() % 128 + 128));
    bytes.push_back(static_cast<char>(chunk.size() / 128));
    v1::FetchSnapshotResponse message;
    absl::Cord received;
    ASSERT_TRUE(DecodeSnapshotMessage(InSlices(bytes + chunk, 50), &message, &received));
    EXPECT_EQ(message.file_chunk().offset(), 5u);
    EXPECT_TRUE(message.file_chunk().data().empty());
    EXPECT_TRUE(received == data);
  }
  v1::FetchSnapshotResponse header;
  header.mutable_header()->set_snapshot_id(7);
  v1::FetchSnapshotResponse message;
  absl::Cord received("earlier");
  ASSERT_TRUE(DecodeSnapshotMessage(InSlices(header.SerializeAsString(), 3), &message, &received));
  EXPECT_EQ(message.SerializeAsString(), header.SerializeAsString());
  EXPECT_TRUE(received.empty());
}

TEST(SnapshotMessageTest, WhatIsCutOffOrNoMessageIsRefused) {
  const std::string whole = Piece(3000).SerializeAsString();
  for (const size_t size : {1, 2, 3, 20, 30, 40, 500, 3000}) {
    v1::FetchSnapshotResponse message;
    absl::Cord data;
    EXPECT_FALSE(DecodeSnapshotMessage(InSlices(whole.substr(0, size), 256), &message, &data)) << size;
  }
  v1::FetchSnapshotResponse message;
  absl::Cord data;
  EXPECT_FALSE(DecodeSnapshotMessage(InSlices(std::string(100, '\xff'), 100), &message, &data));
  EXPECT_FALSE(DecodeSnapshotMessage(InSlices("\x22\xff\xff\xff\xff\x0f\x2a\x01x", 100), &message, &data));
}

TEST(FileChunkWireTest, WhatIsOnItsWayMayOutliveTheStream) {
  auto wire = std::make_unique<FileChunkWire>();
  v1::FetchSnapshotResponse message = Piece(5000);
  const std::string expected = message.SerializeAsString();
  std::optional<grpc::ByteBuffer> encoded = wire->Encode(&message);
  wire.reset();
  EXPECT_TRUE(BytesOf(*encoded) == expected);
  encoded.reset();
}

}  // namespace
}  // namespace towline::test
