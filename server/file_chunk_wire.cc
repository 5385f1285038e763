#include "server/file_chunk_wire.h"

#include <algorithm>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/slice.h>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

#include "common/mutex.h"
#include "replica/pull_messages.h"

namespace towline {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

// One is filled while one is sent.
constexpr size_t kSparesMax = 2;

uint32_t Tag(int field) { return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED); }

// Enough for the front of a piece of a file, in any encoding of its numbers.
constexpr size_t kFrontMax = 96;
// A smaller slice may have its bytes in itself, where nobody else can keep them.
constexpr size_t kSharedMin = 256;

// All that stands before `data_size` bytes of data: they are the last field of the last field.
std::string Front(const v1::SnapshotFileChunk& without_data, size_t data_size) {
  const std::string fields = without_data.SerializeAsString();
  const uint32_t data_tag = Tag(v1::SnapshotFileChunk::kDataFieldNumber);
  const auto size = static_cast<uint32_t>(data_size);
  const size_t chunk_size =
      fields.size() + CodedOutputStream::VarintSize32(data_tag) + CodedOutputStream::VarintSize32(size) + data_size;
  std::string front;
  google::protobuf::io::StringOutputStream stream(&front);
  CodedOutputStream out(&stream);
  out.WriteTag(Tag(v1::FetchSnapshotResponse::kFileChunkFieldNumber));
  out.WriteVarint32(static_cast<uint32_t>(chunk_size));
  out.WriteString(fields);
  out.WriteTag(data_tag);
  out.WriteVarint32(size);
  out.Trim();
  return front;
}

// Reads the front of `size` bytes of a message, which begins with `begin`. How long it is; nothing if this is no piece
// of a file with its data at the end.
std::optional<size_t> ReadFront(absl::string_view begin, size_t size, v1::SnapshotFileChunk* chunk) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(begin.data());
  CodedInputStream in(bytes, static_cast<int>(begin.size()));
  uint32_t length = 0;
  if (in.ReadTag() != Tag(v1::FetchSnapshotResponse::kFileChunkFieldNumber) || !in.ReadVarint32(&length)) return {};
  const int fields = in.CurrentPosition();
  if (length != size - static_cast<size_t>(fields)) return {};
  while (true) {
    const int field = in.CurrentPosition();
    const uint32_t tag = in.ReadTag();
    if (tag == Tag(v1::SnapshotFileChunk::kDataFieldNumber)) {
      if (!in.ReadVarint32(&length) || length != size - static_cast<size_t>(in.CurrentPosition())) return {};
      if (!chunk->ParseFromArray(bytes + fields, field - fields)) return {};
      return static_cast<size_t>(in.CurrentPosition());
    }
    if (tag == 0 || !WireFormatLite::SkipField(&in, tag)) return {};
  }
}

// What is behind the first `skip` bytes. It keeps the slices, or a copy of small ones.
absl::Cord Behind(size_t skip, const std::vector<grpc::Slice>& slices) {
  absl::Cord rest;
  for (const grpc::Slice& slice : slices) {
    const absl::string_view bytes(reinterpret_cast<const char*>(slice.begin()), slice.size());
    const absl::string_view part = bytes.substr(std::min(skip, bytes.size()));
    skip -= bytes.size() - part.size();
    if (bytes.size() < kSharedMin) {
      rest.Append(part);
    } else if (!part.empty()) {
      rest.Append(absl::MakeCordFromExternal(part, [slice] {}));
    }
  }
  return rest;
}

}  // namespace

bool DecodeSnapshotMessage(grpc::ByteBuffer bytes, v1::FetchSnapshotResponse* message, absl::Cord* data) {
  std::vector<grpc::Slice> slices;
  if (!bytes.Dump(&slices).ok()) return false;
  std::string begin;
  for (const grpc::Slice& slice : slices) {
    begin.append(reinterpret_cast<const char*>(slice.begin()), std::min(slice.size(), kFrontMax - begin.size()));
  }
  message->Clear();
  if (const auto front = ReadFront(begin, bytes.Length(), message->mutable_file_chunk()); front.has_value()) {
    *data = Behind(*front, slices);
    return true;
  }
  message->Clear();
  if (!grpc::SerializationTraits<v1::FetchSnapshotResponse>::Deserialize(&bytes, message).ok()) return false;
  TakeFileData(message, data);
  return true;
}

// Memory of pieces that have been sent. Threads: all methods from any thread.
class FileChunkWire::Spares {
 public:
  void Put(std::unique_ptr<std::string> data) {
    MutexLock lock(&mutex_);
    if (spares_.size() < kSparesMax) spares_.push_back(std::move(data));
  }

  // Null if there is none.
  std::unique_ptr<std::string> Take() {
    MutexLock lock(&mutex_);
    if (spares_.empty()) return nullptr;
    std::unique_ptr<std::string> data = std::move(spares_.back());
    spares_.pop_back();
    return data;
  }

  // What gRPC holds of a piece until it is sent.
  struct Sent {
    std::unique_ptr<std::string> data;
    std::shared_ptr<Spares> home;

    static void Return(void* sent) {
      const std::unique_ptr<Sent> self(static_cast<Sent*>(sent));
      self->home->Put(std::move(self->data));
    }
  };

 private:
  Mutex mutex_;
  std::vector<std::unique_ptr<std::string>> spares_ TOWLINE_GUARDED_BY(mutex_);
};

FileChunkWire::FileChunkWire() : spares_(std::make_shared<Spares>()) {}

grpc::ByteBuffer FileChunkWire::Encode(v1::FetchSnapshotResponse* message) const {
  if (message->file_chunk().data().empty()) {
    grpc::ByteBuffer encoded;
    bool own = false;
    // It has no limits that a message of ours could exceed.
    (void)grpc::SerializationTraits<v1::FetchSnapshotResponse>::Serialize(*message, &encoded, &own);
    return encoded;
  }
  v1::SnapshotFileChunk* chunk = message->mutable_file_chunk();
  auto sent = std::make_unique<Spares::Sent>();
  sent->data.reset(chunk->release_data());
  sent->home = spares_;
  std::string& data = *sent->data;
  const std::string front = Front(*chunk, data.size());
  grpc::Slice slices[] = {grpc::Slice(front), grpc::Slice(data.data(), data.size(), &Spares::Sent::Return, sent.get())};
  (void)sent.release();  // the slice's
  return grpc::ByteBuffer(slices, std::size(slices));
}

void FileChunkWire::Reuse(v1::FetchSnapshotResponse* message) const {
  if (!message->file_chunk().data().empty()) return;
  if (std::unique_ptr<std::string> data = spares_->Take()) {
    message->mutable_file_chunk()->set_allocated_data(data.release());
  }
}

}  // namespace towline
