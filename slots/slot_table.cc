#include "slots/slot_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "slots/slot_format.h"
#include "slots/slot_live.h"

namespace towline::slots {

void StartGeneration(Slot& slot, uint64_t generation, uint64_t data_generation, Lsn confirmed_lsn) {
  slot.generation = generation;
  slot.data_generation = data_generation;
  slot.confirmed_lsn = confirmed_lsn;
  // A slot in a full resync holds the log for an owner that has nothing of it yet.
  slot.flushed_lsn = slot.state == SlotState::kBootstrapping ? 0 : confirmed_lsn;
  slot.received_lsn = 0;
  slot.applied_lsn = 0;
}

absl::Status SlotNotFound(absl::string_view name) {
  return MakeError(absl::StatusCode::kNotFound, "slot_not_found",
                   absl::StrCat("there is no slot \"", Printable(name), "\""), "list them with: towctl slot list");
}

absl::Status SlotInUse(absl::string_view name) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "slot_in_use", absl::StrCat("slot ", name, " has a session"),
                   "stop its owner first; a drop can be forced");
}

absl::Status SlotIsCopy(const Slot& slot) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "slot_is_copy",
                   absl::StrCat("slot ", slot.name, " is a copy of one that ", slot.origin, " serves"),
                   absl::StrCat("do it on ", slot.origin, ": the copy follows"));
}

SlotTable::SlotTable(FileSystem& fs, const std::string& directory, Clock& clock, Rng& rng, Logger& logger,
                     SlotLimits limits)
    : clock_(clock),
      rng_(rng),
      logger_(logger),
      limits_(limits),
      file_(fs, directory, "slots", kSlotsMagic, kSlotsCapacity) {}

SlotTable::~SlotTable() = default;

absl::StatusOr<std::unique_ptr<SlotTable>> SlotTable::Open(FileSystem& fs, const std::string& directory, Clock& clock,
                                                           Rng& rng, Logger& logger, SlotLimits limits) {
  std::unique_ptr<SlotTable> table(new SlotTable(fs, directory, clock, rng, logger, limits));
  TOWLINE_RETURN_IF_ERROR(table->Load(fs, directory));
  return table;
}

absl::Status SlotTable::Load(FileSystem& fs, const std::string& directory) {
  MutexLock save_lock(&save_mutex_);
  TwoCopyImage saved;
  TOWLINE_ASSIGN_OR_RETURN(const TwoCopyState state, file_.Load(&saved));
  const auto exists = [&](const char* name) { return Exists(fs, JoinPath(directory, name)); };
  // A file gets its name only with an image in it, so one that holds nothing has lost it.
  if (state == TwoCopyState::kAbsent && !exists("slots.a") && !exists("slots.b")) return absl::OkStatus();

  absl::StatusOr<SlotImage> image =
      state == TwoCopyState::kValid
          ? DecodeSlots(saved.version, saved.payload)
          : MakeError(absl::StatusCode::kDataLoss, "slots_damaged", "neither slots.a nor slots.b is whole");
  if (absl::IsFailedPrecondition(image.status())) return image.status();
  // The image may be in the page cache only, left by a process that died before its sync. Pruning relies on it.
  if (image.ok()) TOWLINE_RETURN_IF_ERROR(file_.Settle());

  MutexLock lock(&mutex_);
  unknown_ = !image.ok() || image->unknown;
  if (image.ok()) InstallLocked(*image);
  if (unknown_) {
    logger_.Log(LogLevel::kError, "slots_unknown",
                {{"error", image.ok() ? "an earlier loss was not accepted yet" : image.status().message()},
                 {"slots", slots_.size()},
                 {"next_action", "no log is removed until an operator accepts the loss of the slot table"}});
  }
  return absl::OkStatus();
}

bool SlotTable::unknown() const {
  MutexLock lock(&mutex_);
  return unknown_;
}

absl::Status SlotTable::AcceptLoss() {
  MutexLock save_lock(&save_mutex_);
  if (!unknown()) return absl::OkStatus();
  TOWLINE_RETURN_IF_ERROR(Commit([](SlotImage& image) { image.unknown = false; }));
  logger_.Log(LogLevel::kWarning, "slots_loss_accepted", {});
  return absl::OkStatus();
}

std::vector<Slot> SlotTable::List() const {
  MutexLock lock(&mutex_);
  std::vector<Slot> list;
  list.reserve(slots_.size());
  for (const auto& [name, live] : slots_) list.push_back(live->slot);
  return list;
}

std::optional<Slot> SlotTable::Get(const std::string& name) const {
  MutexLock lock(&mutex_);
  const Live* live = FindLocked(name);
  if (live == nullptr) return std::nullopt;
  return live->slot;
}

absl::StatusOr<Slot> SlotTable::Create(const std::string& name, SlotKind kind, uint64_t data_generation,
                                       Lsn confirmed_lsn) {
  TOWLINE_RETURN_IF_ERROR(ValidateName("slot", name));
  MutexLock save_lock(&save_mutex_);
  {
    MutexLock lock(&mutex_);
    TOWLINE_RETURN_IF_ERROR(CheckRoomLocked(name));
  }
  Slot slot;
  slot.name = name;
  slot.kind = kind;
  slot.created_time_ms = NowMs();
  StartGeneration(slot, NewId(rng_), data_generation, confirmed_lsn);
  TOWLINE_RETURN_IF_ERROR(Insert(slot));
  logger_.Log(LogLevel::kInfo, "slot_created",
              {{"slot", name},
               {"generation", absl::Hex(slot.generation, absl::kZeroPad16)},
               {"data_generation", data_generation},
               {"confirmed_lsn", confirmed_lsn}});
  return slot;
}

// Whether a slot of that name can be added. Temporary ones count too: their number must have a limit.
absl::Status SlotTable::CheckRoomLocked(const std::string& name) const {
  if (const Live* live = FindLocked(name)) {
    return MakeError(absl::StatusCode::kAlreadyExists, "slot_exists",
                     absl::StrCat(live->slot.temporary ? "temporary slot " : "slot ", name, " exists already"),
                     "use another name");
  }
  if (slots_.size() < kSlotsMax) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "slot_limit",
                   absl::StrCat("the slot table holds ", slots_.size(), " slots of at most ", kSlotsMax),
                   "drop a slot that nobody uses");
}

absl::Status SlotTable::Insert(const Slot& slot) {
  return Commit([&slot](SlotImage& image) {
    const auto by_name = [](const Slot& a, const Slot& b) { return a.name < b.name; };
    image.slots.insert(std::lower_bound(image.slots.begin(), image.slots.end(), slot, by_name), slot);
  });
}

absl::StatusOr<Slot> SlotTable::Drop(const std::string& name, bool force) {
  MutexLock save_lock(&save_mutex_);
  Slot slot;
  {
    MutexLock lock(&mutex_);
    const Live* live = FindLocked(name);
    if (live == nullptr) return SlotNotFound(name);
    if (live->session_id != 0 && !force) return SlotInUse(name);
    if (!live->slot.origin.empty() && !force) return SlotIsCopy(live->slot);
    slot = live->slot;
  }
  TOWLINE_RETURN_IF_ERROR(Commit([&name](SlotImage& image) {
    image.slots.erase(
        std::remove_if(image.slots.begin(), image.slots.end(), [&name](const Slot& each) { return each.name == name; }),
        image.slots.end());
  }));
  logger_.Log(LogLevel::kInfo, "slot_dropped",
              {{"slot", name}, {"force", force}, {"confirmed_lsn", slot.confirmed_lsn}});
  return slot;
}

absl::StatusOr<Slot> SlotTable::NewGeneration(const std::string& name, uint64_t data_generation, Lsn confirmed_lsn,
                                              SlotState state, const std::string& bootstrap_reason, bool keep_session) {
  if (bootstrap_reason.size() > kSlotTextSizeMax || state == SlotState::kInvalidated) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_slot_state",
                     absl::StrCat("slot ", name, " cannot start a generation with this state and reason"));
  }
  MutexLock save_lock(&save_mutex_);
  Lsn old_confirmed_lsn = 0;
  {
    MutexLock lock(&mutex_);
    Live* live = FindLocked(name);
    if (live == nullptr) return SlotNotFound(name);
    old_confirmed_lsn = live->slot.confirmed_lsn;
  }
  Slot started;
  const uint64_t generation = NewId(rng_);
  TOWLINE_RETURN_IF_ERROR(CommitSlot(name, [&](Slot& slot) {
    slot.state = state;
    slot.bootstrap_reason = bootstrap_reason;
    slot.invalidation.reset();
    slot.origin.clear();  // a copy becomes a slot that is served here, at a position of this node's log
    StartGeneration(slot, generation, data_generation, confirmed_lsn);
  }));
  {
    MutexLock lock(&mutex_);
    Live* live = FindLocked(name);
    if (live == nullptr) return SlotNotFound(name);  // temporary, and its session ended meanwhile
    if (!keep_session) EndSessionLocked(*live);
    started = live->slot;
    ForgetTemporaryLocked(name);
  }
  logger_.Log(LogLevel::kInfo, "slot_new_generation",
              {{"slot", name},
               {"generation", absl::Hex(generation, absl::kZeroPad16)},
               {"data_generation", data_generation},
               {"confirmed_lsn", confirmed_lsn},
               {"old_confirmed_lsn", old_confirmed_lsn},
               {"bootstrap_reason", bootstrap_reason}});
  return started;
}

absl::Status SlotTable::RaiseConfirmed(const std::string& name, uint64_t generation, Lsn confirmed_lsn) {
  MutexLock save_lock(&save_mutex_);
  {
    MutexLock lock(&mutex_);
    const Live* live = FindLocked(name);
    if (live == nullptr) return SlotNotFound(name);
    if (live->slot.generation != generation) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "stale_generation",
                       absl::StrCat("slot ", name, " has another generation"));
    }
    if (live->slot.confirmed_lsn >= confirmed_lsn) return absl::OkStatus();
  }
  return CommitSlot(name,
                    [confirmed_lsn](Slot& slot) { slot.confirmed_lsn = std::max(slot.confirmed_lsn, confirmed_lsn); });
}

absl::Status SlotTable::Revive(const std::string& name) {
  MutexLock save_lock(&save_mutex_);
  {
    MutexLock lock(&mutex_);
    const Live* live = FindLocked(name);
    if (live == nullptr) return SlotNotFound(name);
    if (live->slot.state == SlotState::kActive || live->slot.state == SlotState::kInactive) return absl::OkStatus();
  }
  return CommitSlot(name, [](Slot& slot) {
    slot.state = SlotState::kActive;
    slot.bootstrap_reason.clear();
    slot.invalidation.reset();
  });
}

Lsn SlotTable::first_retained(uint64_t data_generation) const {
  MutexLock lock(&mutex_);
  const auto found = first_retained_.find(data_generation);
  return found == first_retained_.end() ? 0 : found->second;
}

absl::Status SlotTable::SaveFirstRetained(uint64_t data_generation, Lsn lsn) {
  MutexLock save_lock(&save_mutex_);
  if (first_retained(data_generation) >= lsn) return absl::OkStatus();
  return Commit([data_generation, lsn](SlotImage& image) {
    image.first_retained[data_generation] = lsn;
    // Generations rise, so the lowest is the one that is gone the longest.
    while (image.first_retained.size() > kFirstRetainedMax) image.first_retained.erase(image.first_retained.begin());
  });
}

absl::Status SlotTable::SaveIfDirty() {
  MutexLock save_lock(&save_mutex_);
  SlotImage image;
  {
    MutexLock lock(&mutex_);
    if (!dirty_) return absl::OkStatus();
    image = ImageLocked();
    dirty_ = false;
  }
  const absl::Status saved = file_.Save(kSlotsVersion, EncodeSlots(image));
  MutexLock lock(&mutex_);
  if (!saved.ok()) {
    dirty_ = true;
    return saved;
  }
  ++saves_total_;
  InstallLocked(image);
  return absl::OkStatus();
}

absl::Status SlotTable::SwitchDataGeneration(uint64_t data_generation, Lsn first_lsn, Lsn end_lsn) {
  MutexLock save_lock(&save_mutex_);
  std::vector<std::string> clamped;
  std::vector<Slot> lost;
  TOWLINE_RETURN_IF_ERROR(Commit([&](SlotImage& image) {
    for (auto it = image.first_retained.begin(); it != image.first_retained.end();) {
      it = it->first == data_generation ? std::next(it) : image.first_retained.erase(it);
    }
    for (Slot& slot : image.slots) {
      slot.data_generation = data_generation;
      if (slot.confirmed_lsn > end_lsn || slot.flushed_lsn > end_lsn) {
        StartGeneration(slot, NewId(rng_), data_generation, std::min(slot.confirmed_lsn, end_lsn));
        clamped.push_back(slot.name);
      }
      if (HoldsLog(slot) && slot.confirmed_lsn + 1 < first_lsn) {
        slot.state = SlotState::kInvalidated;
        slot.invalidation = Invalidation{"wal_removed", end_lsn, NowMs(), slot.confirmed_lsn + 1, first_lsn};
        lost.push_back(slot);
      }
    }
  }));
  for (const Slot& slot : lost) {
    logger_.Log(LogLevel::kWarning, "slot_invalidated",
                {{"slot", slot.name},
                 {"cause", slot.invalidation->cause},
                 {"needed_lsn", slot.invalidation->needed_lsn},
                 {"first_lsn", first_lsn},
                 {"durable_lsn", end_lsn},
                 {"data_generation", data_generation}});
  }
  MutexLock lock(&mutex_);
  for (const std::string& name : clamped) {
    if (Live* live = FindLocked(name)) EndSessionLocked(*live);
    ForgetTemporaryLocked(name);
  }
  return absl::OkStatus();
}

uint64_t SlotTable::saves_total() const {
  MutexLock lock(&mutex_);
  return saves_total_;
}

SlotImage SlotTable::ImageLocked() const {
  SlotImage image;
  image.unknown = unknown_;
  image.first_retained = first_retained_;
  image.slots.reserve(slots_.size());
  for (const auto& [name, live] : slots_) image.slots.push_back(live->slot);
  return image;
}

// Saves the table as `change` leaves it to both copies, then makes it the live one.
absl::Status SlotTable::Commit(const std::function<void(SlotImage&)>& change) {
  SlotImage image;
  {
    MutexLock lock(&mutex_);
    image = ImageLocked();
    dirty_ = false;
  }
  change(image);
  const absl::Status saved = file_.SaveBoth(kSlotsVersion, EncodeSlots(image));
  MutexLock lock(&mutex_);
  if (!saved.ok()) {
    dirty_ = true;
    return saved;
  }
  ++saves_total_;
  InstallLocked(image);
  return absl::OkStatus();
}

absl::Status SlotTable::CommitSlot(const std::string& name, const std::function<void(Slot&)>& change) {
  {
    MutexLock lock(&mutex_);
    Live* live = FindLocked(name);
    if (live != nullptr && live->slot.temporary) {  // there is nothing to save
      change(live->slot);
      if (live->slot.state == SlotState::kInactive && live->session_id != 0) live->slot.state = SlotState::kActive;
      return absl::OkStatus();
    }
  }
  return Commit([&](SlotImage& image) {
    for (Slot& slot : image.slots) {
      if (slot.name == name) change(slot);
    }
  });
}

// Makes the image that was just saved or loaded the live table. Acks that arrived during the save are kept.
void SlotTable::InstallLocked(const SlotImage& image) {
  unknown_ = image.unknown;
  first_retained_ = image.first_retained;
  std::map<std::string, std::unique_ptr<Live>> previous = std::move(slots_);
  slots_.clear();
  for (const Slot& saved : image.slots) {
    const auto found = previous.find(saved.name);
    if (found == previous.end() && saved.temporary) continue;  // its session ended during the save
    std::unique_ptr<Live>& live = slots_[saved.name];
    if (found == previous.end()) {
      live = std::make_unique<Live>();
      live->idle_since_micros = clock_.MonotonicMicros();
      live->slot = saved;
    } else {
      live = std::move(found->second);
      previous.erase(found);
      const Slot before = std::move(live->slot);
      live->slot = saved;
      if (before.generation == saved.generation) {
        live->slot.confirmed_lsn = std::max(before.confirmed_lsn, saved.confirmed_lsn);
        live->slot.flushed_lsn = std::max(before.flushed_lsn, saved.flushed_lsn);
        live->slot.received_lsn = before.received_lsn;
        live->slot.applied_lsn = before.applied_lsn;
        live->slot.last_active_time_ms = before.last_active_time_ms;
      }
    }
    if (saved.state == SlotState::kActive || saved.state == SlotState::kInactive) {
      live->slot.state = live->session_id != 0 ? SlotState::kActive : SlotState::kInactive;
    }
    live->saved_holds = HoldsLog(saved);
    live->saved_data_generation = saved.data_generation;
    live->saved_confirmed_lsn = saved.confirmed_lsn;
  }
  for (const auto& [name, dropped] : previous) EndSessionLocked(*dropped);
}

SlotTable::Live* SlotTable::FindLocked(const std::string& name) const {
  const auto found = slots_.find(name);
  return found == slots_.end() ? nullptr : found->second.get();
}

uint64_t SlotTable::NowMs() const { return static_cast<uint64_t>(clock_.WallMicros()) / 1000; }

}  // namespace towline::slots
