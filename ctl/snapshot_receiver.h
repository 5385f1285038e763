// A snapshot stream that becomes a file: checks each piece, writes it, and knows from where a cut stream goes on.

#ifndef TOWLINE_CTL_SNAPSHOT_RECEIVER_H_
#define TOWLINE_CTL_SNAPSHOT_RECEIVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

#include "common/file_system.h"
#include "store/snapshot_codec.h"
#include "towline/v1/replication_service.pb.h"

namespace towline::ctl {

// Threads: external synchronization.
class SnapshotReceiver {
 public:
  // `file` is overwritten from its beginning; it must outlive the receiver.
  explicit SnapshotReceiver(File& file);

  // Gives up what was received: the next stream begins anew.
  void Reset();

  // What the next stream is asked for: to go on behind what was received, if that is possible. To be called before each
  // stream.
  v1::SaveSnapshotRequest NextRequest();

  // Takes one answer and writes what it holds. DATA_LOSS, reason snapshot_malformed: the stream is not what it says.
  // Errors of the file: see file_failed(). After an error: NextRequest, or Reset.
  absl::Status Take(const v1::SaveSnapshotResponse& response);

  bool complete() const { return complete_; }        // the end came, and all of it holds
  bool file_failed() const { return file_failed_; }  // the last error is of the file
  // Whether the server began anew though it was asked to go on.
  bool begun_anew() const { return begun_anew_; }

  const v1::SnapshotHeader& header() const { return header_; }  // of the present stream
  const SnapshotMeta& meta() const { return installer_->meta(); }
  uint64_t keys() const { return installer_->keys(); }
  uint64_t bytes() const { return installer_->bytes(); }
  uint64_t chunks() const { return installer_->chunks(); }
  const std::string& digest() const { return digest_; }  // when complete

 private:
  absl::Status TakeHeader(const v1::SnapshotHeader& header);
  absl::Status TakeChunk(const v1::SnapshotChunk& chunk);
  absl::Status TakeEnd(const v1::SnapshotEnd& end);

  File& file_;
  std::unique_ptr<SnapshotInstaller> installer_;  // checks as a replica does; its store keeps nothing
  v1::SnapshotHeader header_;
  bool has_header_ = false;      // of the present stream
  uint64_t asked_sequence_ = 0;  // of the present stream's cursor; 0 = none
  uint64_t snapshot_id_ = 0;     // of what was received
  std::string digest_;
  bool begun_anew_ = false;
  bool complete_ = false;
  bool file_failed_ = false;
};

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_SNAPSHOT_RECEIVER_H_
