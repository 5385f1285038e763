// Records on their way to one receiver: cuts batches of the log into messages within size and credit.

#ifndef TOWLINE_PRIMARY_OUTGOING_RECORDS_H_
#define TOWLINE_PRIMARY_OUTGOING_RECORDS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "common/types.h"
#include "wal/spool.h"

namespace towline {
namespace v1 {
class PullResponse;
}  // namespace v1

// Holds one batch at a time, so a receiver that gives no credit costs no more memory than that.
// Threads: external synchronization.
class OutgoingRecords {
 public:
  // `message_bytes_max` bounds the shipped parts in one message, but for a single larger record in RECORDS format.
  OutgoingRecords(bool as_frames, size_t message_bytes_max)
      : as_frames_(as_frames), message_bytes_max_(message_bytes_max) {}

  // Whether Load is due.
  bool empty() const { return offset_ == batch_.bytes.size(); }
  void Load(wal::ShippedBatch batch);

  // Fills the next message with whole records worth at most `credit_bytes`, but at least one, or with a piece of one
  // large frame. Requires !empty(). Credit was 1 or more when the first piece of a record left. DATA_LOSS: the log
  // holds something that is no record.
  absl::Status Fill(uint64_t credit_bytes, v1::PullResponse* out);

  // Whether the rest of a large frame is due, which needs no credit.
  bool in_fragment() const { return fragment_offset_ != 0; }

  // Bytes of shipped parts, and last LSN, given out so far. A record counts once its last piece is out.
  uint64_t sent_bytes() const { return sent_bytes_; }
  Lsn sent_lsn() const { return sent_lsn_; }

 private:
  struct Piece {
    size_t size = 0;  // bytes of shipped parts from offset_ on
    Lsn first_lsn = 0;
    Lsn last_lsn = 0;
    uint64_t chain_after = 0;
  };

  absl::Status Cut(uint64_t credit_bytes, Piece* piece) const;
  void FillFrames(const Piece& piece, v1::PullResponse* out);
  void FillFragment(const Piece& piece, v1::PullResponse* out);
  absl::Status FillRecords(const Piece& piece, v1::PullResponse* out) const;

  const bool as_frames_;
  const size_t message_bytes_max_;
  wal::ShippedBatch batch_;
  size_t offset_ = 0;           // of the first record in batch_.bytes that is not out
  size_t fragment_offset_ = 0;  // bytes of that record that are out
  uint64_t sent_bytes_ = 0;
  Lsn sent_lsn_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_PRIMARY_OUTGOING_RECORDS_H_
