// A FetchSnapshotResponse with a piece of a file, as the bytes that Protobuf would make of it, around its data.
//
// Protobuf copies the data when it writes a message, and when it reads one. Here gRPC sends it from where it was read
// to, and the receiver gets it where gRPC received it.

#ifndef TOWLINE_SERVER_FILE_CHUNK_WIRE_H_
#define TOWLINE_SERVER_FILE_CHUNK_WIRE_H_

#include <grpcpp/support/byte_buffer.h>
#include <memory>

#include "absl/strings/cord.h"

#include "towline/v1/replication_service.pb.h"

namespace towline {

// What Encode or Protobuf wrote. `*data` is that of a piece of a file, whose own field is left empty; it keeps what it
// needs of `bytes`. False: that is no FetchSnapshotResponse.
bool DecodeSnapshotMessage(grpc::ByteBuffer bytes, v1::FetchSnapshotResponse* message, absl::Cord* data);

// Threads: one; gRPC lets go of what was encoded on threads of its own, also later than this goes away.
class FileChunkWire {
 public:
  FileChunkWire();
  FileChunkWire(const FileChunkWire&) = delete;
  FileChunkWire& operator=(const FileChunkWire&) = delete;

  // What `message` is on the wire. The data of a piece of a file is taken from it, anything else is copied.
  grpc::ByteBuffer Encode(v1::FetchSnapshotResponse* message) const;

  // Gives `*message` a piece of a file whose data has memory that was sent before, if there is some, and it has none.
  void Reuse(v1::FetchSnapshotResponse* message) const;

 private:
  class Spares;

  const std::shared_ptr<Spares> spares_;
};

}  // namespace towline

#endif  // TOWLINE_SERVER_FILE_CHUNK_WIRE_H_
