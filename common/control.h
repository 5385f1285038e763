// The control file: who this node is, which generation is live, what it has promised.
//
// Format: docs/formats/control_v2.md, inside a TwoCopyFile. `control` is the one switch of a data directory: a
// generation is live because the control file says so.

#ifndef TOWLINE_COMMON_CONTROL_H_
#define TOWLINE_COMMON_CONTROL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/file_system.h"
#include "common/mutex.h"
#include "common/two_copy_file.h"
#include "common/types.h"

namespace towline {

inline constexpr uint64_t kControlMagic = 0x314c5443574f5400ull;  // docs/formats/control_v2.md
inline constexpr uint32_t kControlVersion = 2;                    // written; version 1 is read too
inline constexpr size_t kControlCapacity = 64 << 10;

enum class NodeRole : uint8_t { kPrimary = 1, kReplica = 2 };
enum class RecoveryState : uint8_t { kNone = 0, kRecoveryRequired = 1 };

struct Control {
  ClusterId cluster_id;  // empty = none yet (a replica before its first attach)
  std::string node_id;
  uint64_t incarnation = 0;
  NodeRole role = NodeRole::kPrimary;
  Term promised_term = 0;          // 0 = nothing promised
  std::string promised_candidate;  // node id
  History history;
  std::string term_primary;  // node id of the primary of the history's last term; empty = not known
  MemberList members;
  uint64_t generation = 0;  // live generation; 0 = none yet
  Position base;            // where the live generation's spool begins: its first record is base.lsn + 1
  Position exact_from;      // the live state is exact from here on; base or later
  Lsn watermark = 0;        // of the live generation: every record up to it was durable once
  RecoveryState recovery = RecoveryState::kNone;
  std::string recovery_reason;

  friend bool operator==(const Control&, const Control&) = default;
};

// Replaces the history; who was the primary of its last term is not known unless that term is as before.
void SetHistory(History history, Control* control);

std::string EncodeControl(const Control& control);
// DATA_LOSS, reason control_damaged, if malformed; FAILED_PRECONDITION, reason control_version, if of another version.
absl::StatusOr<Control> DecodeControl(uint32_t version, absl::string_view payload);

// The saved control of one data directory, kept in memory.
// Threads: all methods from any thread.
class ControlFile {
 public:
  // Reads `control.a/.b` in `directory`. kAbsent leaves exists() false. kDamaged: DATA_LOSS, reason control_damaged.
  static absl::StatusOr<std::unique_ptr<ControlFile>> Open(FileSystem& fs, const std::string& directory);

  bool exists() const;
  Control Get() const;  // requires exists()

  // Replaces the control and saves it: both copies if `both`, else one. On error the memory keeps the old value.
  // INVALID_ARGUMENT, reason control_invalid, and nothing written, if DecodeControl would refuse it.
  absl::Status Set(const Control& control, bool both) TOWLINE_EXCLUDES(mutex_);

  // Makes what Open read durable (TwoCopyFile::Settle); a node calls it before it acts on its control. No-op if the
  // control was saved since, or does not exist.
  absl::Status Settle() TOWLINE_EXCLUDES(mutex_);

  // Read-modify-save under the lock: `mutate` changes a copy of the present value.
  template <typename F>
  absl::Status Update(bool both, F mutate) TOWLINE_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    Control next = control_;
    mutate(next);
    return SaveLocked(next, both);
  }

 private:
  ControlFile(FileSystem& fs, const std::string& directory);
  absl::Status SaveLocked(const Control& control, bool both) TOWLINE_REQUIRES(mutex_);

  mutable Mutex mutex_;
  TwoCopyFile file_ TOWLINE_GUARDED_BY(mutex_);
  bool exists_ TOWLINE_GUARDED_BY(mutex_) = false;
  Control control_ TOWLINE_GUARDED_BY(mutex_);
};

}  // namespace towline

#endif  // TOWLINE_COMMON_CONTROL_H_
