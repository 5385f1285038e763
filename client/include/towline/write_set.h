// One record to write: operations that take effect together, and what must hold for that.

#ifndef TOWLINE_WRITE_SET_H_
#define TOWLINE_WRITE_SET_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace towline {

namespace v1 {
class WriteRequest;
}  // namespace v1

// How many nodes must hold a record before its write is answered: the commit level.
struct WriteDurability {
  uint32_t replicas = 0;                 // besides the primary; 0 = its own log is enough
  bool applied = false;                  // visible in their state, not only durable in their log
  std::chrono::milliseconds timeout{0};  // how long to wait for them, up to 10 minutes; 0 = the primary's default
  bool accept_less = false;              // then: OK with the level that was reached, instead of replication_timeout
};

// Keys and topics have 1 to 65536 bytes, anything may be in them. Limits are checked by the server.
// Threads: external synchronization.
class WriteSet {
 public:
  WriteSet();
  ~WriteSet();
  WriteSet(const WriteSet& other);
  WriteSet& operator=(const WriteSet& other);
  WriteSet(WriteSet&& other) noexcept;             // `other` can only be assigned to or destroyed afterwards
  WriteSet& operator=(WriteSet&& other) noexcept;  // likewise

  // Operations, in order; a later one wins over an earlier one on the same key.
  WriteSet& Put(absl::string_view key, absl::string_view value);
  // The key no longer exists after this time, counted from the primary's clock; at least 1 ms.
  WriteSet& Put(absl::string_view key, absl::string_view value, std::chrono::milliseconds ttl);
  WriteSet& Delete(absl::string_view key);  // removing an absent key is no error
  // Every key from `begin` on, up to `end`, which stays. Empty bounds are the first key and behind the last key.
  WriteSet& DeleteRange(absl::string_view begin, absl::string_view end);
  // Consumers of the change stream see it; the state does not.
  WriteSet& Message(absl::string_view topic, absl::string_view payload);

  // Conditions: unless all hold, nothing is written and the answer is condition_failed.
  WriteSet& IfExists(absl::string_view key);
  WriteSet& IfAbsent(absl::string_view key);
  WriteSet& IfModifiedAt(absl::string_view key, uint64_t lsn);  // the record with this LSN wrote the key last

  // The commit level of this record instead of the client's; a batcher has one level for all its records.
  WriteSet& Durability(const WriteDurability& durability);

  // An id of the caller's own, [a-z0-9][a-z0-9_-]{0,62} and 1 or more, instead of the one that the client makes. A
  // write with an id that was seen before is not applied again, also by another process.
  WriteSet& RequestId(absl::string_view client_id, uint64_t sequence);

  // For the library's own use: what is sent.
  const v1::WriteRequest& request() const { return *request_; }
  v1::WriteRequest& request() { return *request_; }

 private:
  std::unique_ptr<v1::WriteRequest> request_;
};

}  // namespace towline

#endif  // TOWLINE_WRITE_SET_H_
