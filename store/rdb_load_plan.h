// Which entries of an RDB file become keys of Towline, and whether it may be loaded at all. Says nothing about how they
// are written.

#ifndef TOWLINE_STORE_RDB_LOAD_PLAN_H_
#define TOWLINE_STORE_RDB_LOAD_PLAN_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "store/rdb_reader.h"
#include "store/rdb_walk.h"

namespace towline {

struct RdbLoadOptions {
  std::optional<uint64_t> db;     // load this database; unset = the only one that holds strings
  bool skip_other_types = false;  // leave out what is not a string, instead of refusing the file
  uint64_t record_bytes_max = 0;  // largest encoded record with one key
  uint64_t now_ms = 0;            // keys that expire at this Unix time or before are left out
};

// What is in one database.
struct RdbLoadCounts {
  uint64_t keys = 0;   // to be loaded
  uint64_t bytes = 0;  // keys and values of them
  uint64_t expired = 0;
  uint64_t empty_keys = 0;     // of 0 bytes
  uint64_t long_keys = 0;      // of more than kKeySizeMax
  uint64_t large_records = 0;  // above record_bytes_max
  uint64_t largest_record = 0;
  std::map<std::string, uint64_t> other_types;
};

// To be filled in one walk over the file, and asked in a second one.
// Threads: external synchronization.
class RdbLoadPlan {
 public:
  explicit RdbLoadPlan(const RdbLoadOptions& options) : options_(options) {}

  // Every item of the first walk.
  void Take(const RdbEvent& event, const RdbPlace& place);

  // After the first walk: chooses the database. FAILED_PRECONDITION, reason not_loadable: what hinders, with counts and
  // the options that help.
  absl::Status Decide();

  // After Decide(): whether this item is a key to load.
  bool Loads(const RdbEvent& event, const RdbPlace& place) const {
    return event.kind == RdbEvent::Kind::kEntry && place.db == db_ && !IsExpired(event);
  }

  // After Decide().
  uint64_t db() const { return db_; }
  const RdbLoadCounts& counts() const { return databases_.at(db_); }
  // Left out with skip_other_types: those of db(), and functions and the like, which belong to no database.
  std::map<std::string, uint64_t> SkippedTypes() const;
  // Strings in other databases than db().
  uint64_t keys_elsewhere() const;

 private:
  bool IsExpired(const RdbEvent& event) const {
    return event.expire_at_ms != 0 && event.expire_at_ms <= options_.now_ms;
  }

  RdbLoadOptions options_;
  std::map<uint64_t, RdbLoadCounts> databases_;
  std::map<std::string, uint64_t> without_key_;
  uint64_t db_ = 0;
};

// Bytes of the operation that puts a key, as an element of a batch.
uint64_t EncodedPutSize(absl::string_view key, absl::string_view value, uint64_t expire_at_ms);

// Bytes of a record (a Change, docs/formats/frame_v1.md) whose operations together take so many bytes.
uint64_t EncodedRecordSize(uint64_t operations_bytes);

}  // namespace towline

#endif  // TOWLINE_STORE_RDB_LOAD_PLAN_H_
