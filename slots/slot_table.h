// Slots: durable, named claims on the log.
//
// Format: docs/formats/slots_v1.md, inside a TwoCopyFile (`slots.a`, `slots.b`).
//
// What is saved when: create, drop, new generation, invalidation and the first retained LSN are saved, to both copies,
// before the call returns; progress from acks is saved by SaveIfDirty, which a timer calls at most once per persist
// interval. Pruning uses saved values only: Floor() answers from the image on disk. If both copies are damaged the
// table is `unknown`: Floor() is 0 (nothing may be removed) until AcceptLoss. An error of a save is returned and the
// table keeps what it had before; what is on disk is then the one or the other. A temporary slot lives as long as its
// session and is never saved; Floor() counts its live position.

#ifndef TOWLINE_SLOTS_SLOT_TABLE_H_
#define TOWLINE_SLOTS_SLOT_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/file_system.h"
#include "common/logger.h"
#include "common/mutex.h"
#include "common/rng.h"
#include "common/two_copy_file.h"
#include "common/types.h"
#include "slots/slot.h"

namespace towline::slots {

inline constexpr uint64_t kSlotsMagic = 0x31544f4c53574f54ull;  // docs/formats/slots_v1.md
inline constexpr uint32_t kSlotsVersion = 1;
inline constexpr size_t kSlotsCapacity = 256 << 10;

struct SlotImage;
struct SlotCopies;  // slots/slot_copies.h
struct SlotCopy;

// Threads: all methods from any. Reads, Advance and EndSession never wait for the disk.
class SlotTable {
 public:
  // Reads the table in `directory` and makes what it read durable. A damaged pair of copies is no error: see unknown().
  // So are copies that hold nothing, which no save leaves behind.
  // FAILED_PRECONDITION, reason slots_version: written by another version.
  static absl::StatusOr<std::unique_ptr<SlotTable>> Open(FileSystem& fs, const std::string& directory, Clock& clock,
                                                         Rng& rng, Logger& logger, SlotLimits limits);
  ~SlotTable();

  // True if both copies were damaged: nothing may be pruned until AcceptLoss.
  bool unknown() const;
  absl::Status AcceptLoss();

  std::vector<Slot> List() const;  // ordered by name
  std::optional<Slot> Get(const std::string& name) const;

  // Creates a slot; saved before return. ALREADY_EXISTS, reason slot_exists; INVALID_ARGUMENT, reason invalid_name;
  // RESOURCE_EXHAUSTED, reason slot_limit: the table is full.
  absl::StatusOr<Slot> Create(const std::string& name, SlotKind kind, uint64_t data_generation, Lsn confirmed_lsn);

  // Drops a slot; saved before return. NOT_FOUND, reason slot_not_found; FAILED_PRECONDITION, reason slot_in_use or
  // slot_is_copy, unless `force`.
  absl::StatusOr<Slot> Drop(const std::string& name, bool force);

  // Creates slot `name` of the kind and at the position that is saved of `source`; saved before return. The source's
  // log stays for the copy if it was there. `first_lsn` is the first LSN of the log of `data_generation`. Errors of
  // Create; NOT_FOUND, reason slot_not_found; FAILED_PRECONDITION, reason slot_invalidated, slot_bootstrapping,
  // slot_rewinding, wal_removed: the source does not hold what the copy would claim; slot_is_copy: another node serves
  // it.
  absl::StatusOr<Slot> Copy(const std::string& source, const std::string& name, uint64_t data_generation,
                            Lsn first_lsn);

  // Raises the confirmed LSN of a consumer's slot without its owner; saved before return. The present value is no
  // change. NOT_FOUND, reason slot_not_found; FAILED_PRECONDITION, reason slot_kind, slot_is_copy, slot_in_use,
  // slot_invalidated, wal_removed (of another log); OUT_OF_RANGE, reason advance_backwards, or lsn_out_of_range above
  // `durable_lsn`.
  absl::StatusOr<Slot> AdvanceTo(const std::string& name, Lsn confirmed_lsn, uint64_t data_generation, Lsn durable_lsn);

  // Starts a session; on a copy, start a new generation with it, which is served here. FAILED_PRECONDITION, reason
  // slot_in_use, while another process holds one. `superseded` gets the id of the session that the same process held,
  // or 0. State becomes kActive (kBootstrapping stays).
  absl::StatusOr<Session> BeginSession(const std::string& name, const SessionOwner& owner, uint64_t* superseded);
  // Starts a session on a temporary slot, which is made for it at `confirmed_lsn`. A session that the same process has
  // on a temporary slot of that name is superseded, and the slot goes on where it is, or at `confirmed_lsn` in a new
  // generation if that is lower or it holds nothing. FAILED_PRECONDITION, reason slot_in_use; ALREADY_EXISTS, reason
  // slot_exists: the name belongs to a slot that is not temporary; INVALID_ARGUMENT, reason invalid_name;
  // RESOURCE_EXHAUSTED, reason slot_limit.
  absl::StatusOr<Session> BeginTemporary(const std::string& name, SlotKind kind, uint64_t data_generation,
                                         Lsn confirmed_lsn, const SessionOwner& owner, uint64_t* superseded);
  void EndSession(uint64_t session_id);  // unknown ids are ignored; a temporary slot goes with its session
  // FAILED_PRECONDITION, reason slot_in_use, while another process holds a session of the slot.
  absl::Status CheckFree(const std::string& name, uint64_t process_instance) const;
  uint64_t SessionProcess(const std::string& name) const;  // that holds a session of the slot; 0 = nobody
  bool HasSession(uint64_t session_id) const;              // false once it was ended, superseded, or its slot dropped

  // Starts a new generation at `confirmed_lsn` in `state`, which is served here; saved before return. The present
  // session, if any, goes on under the new generation only if `keep_session`.
  absl::StatusOr<Slot> NewGeneration(const std::string& name, uint64_t data_generation, Lsn confirmed_lsn,
                                     SlotState state, const std::string& bootstrap_reason, bool keep_session);

  // Raises confirmed_lsn of the present generation and saves it; used to move a bootstrap pin from P to X.
  absl::Status RaiseConfirmed(const std::string& name, uint64_t generation, Lsn confirmed_lsn);

  // Takes an ack. Refused (FAILED_PRECONDITION, reason stale_session | stale_generation; OUT_OF_RANGE, reason
  // ack_ahead if anything is above `sent_lsn`; INVALID_ARGUMENT, reason ack_order unless received >= flushed,
  // applied): nothing changes. Lower values than before are ignored. confirmed_lsn follows flushed_lsn. Never saves.
  absl::Status Advance(const Ack& ack, Lsn sent_lsn);

  // The owner is streaming: kBootstrapping, kRewinding or kInvalidated become kActive, saved before return.
  absl::Status Revive(const std::string& name);

  // Lowest saved confirmed_lsn + 1 of the slots that hold the log: the first LSN that must stay. UINT64_MAX = no slot
  // holds anything; 0 = unknown, remove nothing. Slots of other data generations are ignored.
  Lsn Floor(uint64_t data_generation) const;

  // First retained LSN, saved before the log below it is removed. 0 = never set for this data generation.
  Lsn first_retained(uint64_t data_generation) const;
  absl::Status SaveFirstRetained(uint64_t data_generation, Lsn lsn);

  // Invalidates slots that are over a limit, saved before return. Returns those it invalidated. While the disk is in
  // use beyond its guard, that is at most one slot a call, of those that hold more log than is kept anyway: without a
  // session before with one, then consumers before replicas, then the longest without a session, then who holds most.
  absl::StatusOr<std::vector<Slot>> EnforceLimits(const LogView& log, uint64_t data_generation);

  // Invalidates a slot that holds log of `data_generation` for a cause that is not a limit, saved before return, and
  // ends the session of `owner` on it, whose id `superseded` gets (0 = none). nullopt: there is no such slot, it is
  // temporary, bootstrapping or invalidated already, or another process has a session on it.
  absl::StatusOr<std::optional<Slot>> Invalidate(const std::string& name, const SessionOwner& owner,
                                                 const std::string& cause, const LogView& log, uint64_t data_generation,
                                                 uint64_t* superseded);

  // Saves progress if there is any. At most one write to the disk.
  absl::Status SaveIfDirty();

  // --- Copies of another node's slots: slot_copies.cc ---

  // The slots that are served here, as they are saved, by name; temporary ones are not.
  std::vector<SlotCopy> SavedSlots(uint64_t data_generation) const;

  // Makes the table's copies those of `all`, which is complete; they hold log of `data_generation`, as far as it is
  // here and the limits allow it. A slot that is served here stays while it has a session, and afterwards unless it is
  // the slot that is told of. `own_name`, this node's slot at the other one, is not copied. All but progress is saved
  // before return. Without effect if `all` was told in a term before that of TakeOver.
  absl::Status SaveCopies(const SlotCopies& all, const std::string& own_name, const LogView& log,
                          uint64_t data_generation);

  // This node is promoted to `term`: copies become slots that are served here, in new generations, not above the
  // durable LSN of `log`; idle times start again; `own_name` is dropped. Saved before return. Returns those that hold
  // nothing.
  absl::StatusOr<std::vector<Slot>> TakeOver(Term term, const std::string& own_name, const LogView& log,
                                             uint64_t data_generation);

  // This node is no longer primary: what it served are copies of the slots of `origin` from now on. Their sessions end.
  // Saved before return.
  absl::Status HandOver(const std::string& origin);

  // Moves all slots to another log of this node, which holds first_lsn to end_lsn (end_lsn + 1 = empty). They keep
  // their names; LSNs above `end_lsn` are clamped in new slot generations; what needs log below `first_lsn` is
  // invalidated.
  absl::Status SwitchDataGeneration(uint64_t data_generation, Lsn first_lsn, Lsn end_lsn);

  // Since the end of the last session, the start of the process or RestartIdleTimes; nullopt while a session is
  // connected, and for an unknown name.
  std::optional<int64_t> IdleMicros(const std::string& name) const;

  // Starts the idle time of every slot again, as a promotion does.
  void RestartIdleTimes();

  uint64_t saves_total() const;
  const SlotLimits& limits() const { return limits_; }

 private:
  struct Live;         // a slot with its session and what is saved of it
  struct CopyChanges;  // what a telling changes
  SlotTable(FileSystem& fs, const std::string& directory, Clock& clock, Rng& rng, Logger& logger, SlotLimits limits);

  absl::Status Load(FileSystem& fs, const std::string& directory) TOWLINE_EXCLUDES(mutex_, save_mutex_);
  SlotImage ImageLocked() const TOWLINE_REQUIRES(mutex_);
  absl::Status Commit(const std::function<void(SlotImage&)>& change) TOWLINE_REQUIRES(save_mutex_)
      TOWLINE_EXCLUDES(mutex_);
  absl::Status CommitSlot(const std::string& name, const std::function<void(Slot&)>& change)
      TOWLINE_REQUIRES(save_mutex_) TOWLINE_EXCLUDES(mutex_);
  void InstallLocked(const SlotImage& image) TOWLINE_REQUIRES(mutex_);
  absl::Status CheckRoomLocked(const std::string& name) const TOWLINE_REQUIRES(mutex_);
  absl::Status Insert(const Slot& slot) TOWLINE_REQUIRES(save_mutex_) TOWLINE_EXCLUDES(mutex_);
  void StartSessionLocked(Live& live, const SessionOwner& owner) TOWLINE_REQUIRES(mutex_);
  void EndSessionLocked(Live& live) TOWLINE_REQUIRES(mutex_);
  void ForgetTemporaryLocked(const std::string& name) TOWLINE_REQUIRES(mutex_);
  Live* FindLocked(const std::string& name) const TOWLINE_REQUIRES(mutex_);
  Slot MakeCopy(const SlotCopy& copy, const std::string& origin, const Slot* before, const LogView& log,
                uint64_t data_generation) const;
  static bool IsContinuedBy(const Slot& before, const Slot& after);
  absl::Status SaveChanges(const std::string& origin, const CopyChanges& changes) TOWLINE_REQUIRES(save_mutex_)
      TOWLINE_EXCLUDES(mutex_);
  std::string OverLimit(const Slot& slot, int64_t idle_micros, bool in_use, const LogView& log) const;
  void LogInvalidated(const Slot& slot, const LogView& log) const;
  uint64_t NowMs() const;

  Clock& clock_;
  Rng& rng_;
  Logger& logger_;
  const SlotLimits limits_;

  // One saver at a time; locked before mutex_, and held over the write, during which mutex_ is free.
  Mutex save_mutex_;
  TwoCopyFile file_ TOWLINE_GUARDED_BY(save_mutex_);

  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<Live>> slots_ TOWLINE_GUARDED_BY(mutex_);
  std::map<uint64_t, Live*> sessions_ TOWLINE_GUARDED_BY(mutex_);      // session id -> its slot
  std::map<uint64_t, Lsn> first_retained_ TOWLINE_GUARDED_BY(mutex_);  // data generation -> LSN
  bool dirty_ TOWLINE_GUARDED_BY(mutex_) = false;
  bool unknown_ TOWLINE_GUARDED_BY(mutex_) = false;
  uint64_t saves_total_ TOWLINE_GUARDED_BY(mutex_) = 0;
  Term taken_over_term_ TOWLINE_GUARDED_BY(mutex_) = 0;  // copies that were told before it are not taken
};

// Those of `slots` whose confirmed LSN proves that this node's log of `data_generation` was durable up to there. Copies
// speak of another node's log.
std::vector<Slot> ProvingSlots(const std::vector<Slot>& slots, uint64_t data_generation);

}  // namespace towline::slots

#endif  // TOWLINE_SLOTS_SLOT_TABLE_H_
