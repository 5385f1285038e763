// A file system in memory that can lose power, fail calls and run full.
//
//   SimFileSystem fs;
//   fs.SetAfterCall([&] {                             // after each call that changes something
//     ForEachCrashState(fs, 8, [&](SimFileSystem& crashed) { ... recover from `crashed` and check ... });
//   });
//   RunWorkload(fs);
//
// Names are durable after SyncDirectory of their directory, contents after SyncData of the file, each apart from the
// other. Directory "/" exists; "a/b" and "/a/b" are the same path.

#ifndef TOWLINE_TESTS_SUPPORT_SIM_FILE_SYSTEM_H_
#define TOWLINE_TESTS_SUPPORT_SIM_FILE_SYSTEM_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/file_system.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "tests/support/sim_disk.h"

namespace towline::test {

// Kinds of calls. The log names them as in the comments.
enum class SimCall {
  kOpen,           // not in the log
  kCreate,         // "create PATH": an open that made a file
  kRead,           // not in the log
  kWrite,          // "write PATH"
  kSync,           // "sync PATH"
  kTruncate,       // "truncate PATH"
  kLock,           // not in the log
  kList,           // not in the log
  kMakeDirectory,  // "mkdir PATH"
  kRename,         // "rename FROM TO"
  kRemove,         // "remove PATH"
  kSyncDirectory,  // "syncdir PATH"
  kLink,           // "link FROM TO"
};

// Threads: all methods from any thread. Files must not outlive their file system.
class SimFileSystem : public FileSystem {
 public:
  SimFileSystem();
  ~SimFileSystem() override;

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status CreateDirectory(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status Link(const std::string& from, const std::string& to) override;
  absl::StatusOr<uint64_t> LinkCount(const std::string& path) override;
  absl::StatusOr<SpaceInfo> Space(const std::string& path) override;

  // --- Ends of the process and of the power ---

  // Power loss: what was not synced is treated by `profile`. Open files become useless, locks are released.
  void Crash(CrashProfile profile, Rng& rng);
  // The process is killed: nothing is lost, what was not synced still is not. Open files become useless.
  void Reopen();
  // An independent file system in the state after Crash, or after Reopen.
  std::unique_ptr<SimFileSystem> CloneAfterCrash(CrashProfile profile, uint64_t seed) const;
  std::unique_ptr<SimFileSystem> Clone() const;

  // --- Failures. A failed write leaves the first half of its data, a failed sync nothing durable. ---

  // Calls so far (of files too), but for Size, LinkCount and Space.
  int64_t calls() const;
  // Call number `n` (the next one is calls() + 1) fails with `status`; with `sticky`, all later ones too.
  void FailCall(int64_t n, absl::Status status, bool sticky = false);
  // The next call of this kind whose path contains `part` fails with `status`.
  void FailNext(SimCall kind, absl::Status status, std::string part = "");
  void ClearFailures();
  // Failed syncs make the data durable all the same. Without it, what they should have synced never will be, though it
  // stays visible.
  void SetFailedSyncPersists(bool persists);

  // Bytes that files may allocate, in pages of 4 KiB; more fails with RESOURCE_EXHAUSTED. 0 = no limit.
  void SetQuota(uint64_t bytes);

  // --- The order of syncs, watched always ---

  // Whether a power loss can change nothing about the file: it has no unsynced writes, and its name is durable. What a
  // failed sync lost is not looked at; crash states show that.
  bool IsDurable(const std::string& path) const;
  // Test code saw somebody rely on what is not durable.
  void AddOrderViolation(std::string what);
  // What was done in an order that a power loss could turn against it: a file that got its final name before its
  // contents were synced, and what AddOrderViolation told. The destructor fails the test if there are any, unless
  // ExpectOrderViolations was called, here or on the file system that this one is a clone of.
  std::vector<std::string> order_violations() const;
  void ExpectOrderViolations();

  // --- Looking and meddling, outside the calls that are counted ---

  // Called after each call that is in the log, without locks held. May clone, must not change anything.
  void SetAfterCall(std::function<void()> hook);

  // The latest calls that change something, oldest first, such as "write wal/1". At most 100000 are kept.
  std::vector<std::string> log() const;
  void ClearLog();

  bool HasFile(const std::string& path) const;
  std::string Contents(const std::string& path) const;  // as visible; the file must exist
  // Durable at once, with all names and the directories in between.
  void SetContents(const std::string& path, absl::string_view bytes);
  void FlipBit(const std::string& path, uint64_t bit);
  // Names in a directory, which must exist.
  std::vector<std::string> Names(const std::string& directory) const;
  // All visible files with their contents.
  std::map<std::string, std::string> AllContents() const;

 private:
  friend class SimFile;

  explicit SimFileSystem(SimDisk disk);

  absl::Status Begin(SimCall kind, const std::string& path, const std::string& label) TOWLINE_REQUIRES(mutex_);
  absl::Status CheckSpace(Ino ino, uint64_t offset, size_t size, const std::string& path) TOWLINE_REQUIRES(mutex_);
  absl::StatusOr<Ino> OpenInode(const std::string& path, OpenMode mode, bool* created) TOWLINE_REQUIRES(mutex_);
  absl::Status Move(const std::string& from, const std::string& to) TOWLINE_REQUIRES(mutex_);
  void AfterCall() TOWLINE_EXCLUDES(mutex_);

  struct NextFailure {
    SimCall kind;
    std::string part;
    absl::Status status;
  };

  mutable Mutex mutex_;
  SimDisk disk_ TOWLINE_GUARDED_BY(mutex_);
  int64_t epoch_ TOWLINE_GUARDED_BY(mutex_) = 0;                 // files of an older one are useless
  std::map<Ino, const File*> locks_ TOWLINE_GUARDED_BY(mutex_);  // by the file that holds it
  int64_t calls_ TOWLINE_GUARDED_BY(mutex_) = 0;
  int64_t fail_at_ TOWLINE_GUARDED_BY(mutex_) = 0;  // 0 = never
  bool fail_sticky_ TOWLINE_GUARDED_BY(mutex_) = false;
  absl::Status fail_status_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<NextFailure> fail_next_ TOWLINE_GUARDED_BY(mutex_);
  bool failed_sync_persists_ TOWLINE_GUARDED_BY(mutex_) = false;
  uint64_t quota_ TOWLINE_GUARDED_BY(mutex_) = 0;
  std::function<void()> after_call_ TOWLINE_GUARDED_BY(mutex_);
  std::deque<std::string> log_ TOWLINE_GUARDED_BY(mutex_);
  std::vector<std::string> order_violations_ TOWLINE_GUARDED_BY(mutex_);
  bool order_violations_expected_ TOWLINE_GUARDED_BY(mutex_) = false;
};

// Calls `fn` with the file system after a power loss now: once under kStrict, `samples` times each under the others,
// with seeds 1, 2, ... A GoogleTest trace names profile and seed.
void ForEachCrashState(const SimFileSystem& fs, int samples, const std::function<void(SimFileSystem&)>& fn);

}  // namespace towline::test

#endif  // TOWLINE_TESTS_SUPPORT_SIM_FILE_SYSTEM_H_
