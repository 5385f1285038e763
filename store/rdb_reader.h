// Reads an RDB stream piece by piece: one of our own, or a file of a real Redis or Valkey.
//
//   RdbReader reader({});
//   reader.Feed(piece);
//   for (;;) {
//     TOWLINE_ASSIGN_OR_RETURN(const RdbEvent event, reader.Next());
//     if (event.kind == RdbEvent::Kind::kNeedMore) ... Feed the next piece, or it was cut short
//     if (event.kind == RdbEvent::Kind::kEnd) ...
//   }
//
// Strings may be plain, integers or LZF-compressed. Other types are refused by name, or skipped without being held. No
// claim of the input makes the reader allocate: memory stays within what was fed and what it decompresses to.

#ifndef TOWLINE_STORE_RDB_READER_H_
#define TOWLINE_STORE_RDB_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "store/rdb_skip.h"

namespace towline {

class RdbCursor;

struct RdbReaderOptions {
  uint64_t key_bytes_max = 64 << 10;
  uint64_t value_bytes_max = 512ull << 20;  // as in Redis
  bool require_checksum = false;            // refuse a stream whose writer did not compute the CRC-64
  bool skip_other_types = false;            // report what is not a string as kOther instead of refusing it
};

// What Next() found. The views hold until the next call of Feed or Next.
struct RdbEvent {
  enum class Kind {
    kNeedMore,  // the rest of the next item was not fed yet
    kAux,       // key = name, value
    kSelectDb,  // number = database of the entries that follow
    kResizeDb,  // number = estimated keys
    kEntry,     // key, value, expire_at_ms
    kOther,     // skipped: value = "list", "function", ...; number = 1 with key and expire_at_ms, 0 if it has no key
    kEnd,       // the checksum was read and holds
  };
  Kind kind = Kind::kNeedMore;
  absl::string_view key;
  absl::string_view value;
  uint64_t expire_at_ms = 0;  // 0 = never
  uint64_t number = 0;
};

// Threads: external synchronization.
class RdbReader {
 public:
  explicit RdbReader(RdbReaderOptions options) : options_(options) {}

  // Goes on in a stream of version 9 whose beginning another reader has taken: the next byte to be fed is the first of
  // an item, at `offset` of the stream, and `crc` is the CRC-64 of all bytes before it (offset() and crc() of that
  // reader after kNeedMore, or between two items).
  static RdbReader Continue(RdbReaderOptions options, uint64_t offset, uint64_t crc);

  // Adds the bytes that follow those fed so far; to be called at the start and after kNeedMore. They are not copied
  // but for an item that is cut at the end: `piece` must stay valid until Next() returns kNeedMore.
  void Feed(absl::string_view piece);

  // DATA_LOSS, reason rdb_malformed; UNIMPLEMENTED, reasons rdb_version_unsupported and rdb_type_unsupported. After an
  // error, or kEnd, the reader is of no more use.
  absl::StatusOr<RdbEvent> Next();

  // Bytes of the stream that were taken: as whole items, but for one that is being skipped.
  uint64_t offset() const { return offset_ + taken_; }
  // CRC-64 of those bytes.
  uint64_t crc() const;
  // Version from the magic; 0 before it was read.
  uint32_t version() const { return version_; }
  // Whether the stream is of Valkey's own format.
  bool valkey() const { return valkey_; }
  // After kEnd: whether the stream had a checksum, which holds. False = its writer computed none.
  bool had_checksum() const { return had_checksum_; }

 private:
  absl::StatusOr<RdbEvent> TakeMagic(RdbCursor& cursor);
  absl::StatusOr<RdbEvent> TakeItem(RdbCursor& cursor);
  absl::StatusOr<RdbEvent> TakeEntry(RdbCursor& cursor, uint8_t opcode);
  absl::StatusOr<RdbEvent> BeginOther(RdbCursor& cursor, uint8_t type, uint64_t expire_at_ms);
  absl::StatusOr<RdbEvent> Skip();
  absl::StatusOr<RdbEvent> TakeEof(RdbCursor& cursor);
  absl::StatusOr<RdbEvent> NeedMore();
  void CountTaken();
  absl::Status Malformed(absl::string_view what) const;

  RdbReaderOptions options_;
  std::string rest_;         // beginning of an item whose end was not fed yet
  absl::string_view input_;  // the caller's piece or rest_
  size_t taken_ = 0;         // bytes of input_ that were taken
  size_t counted_ = 0;       // of them, those that are in crc_
  uint64_t offset_ = 0;      // of input_ in the stream
  uint64_t crc_ = 0;
  uint32_t version_ = 0;
  bool valkey_ = false;
  bool had_checksum_ = false;
  bool ended_ = false;
  std::string decoded_[2];  // a key and a value that were not plain

  RdbSkipper skip_;
  RdbEvent other_;         // what is being skipped
  std::string other_key_;  // its key
};

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_READER_H_
