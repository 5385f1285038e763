// A slot table on a simulated disk.

#ifndef TOWLINE_TESTS_SLOTS_SLOT_TABLE_FIXTURE_H_
#define TOWLINE_TESTS_SLOTS_SLOT_TABLE_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "slots/slot_table.h"
#include "tests/support/fake_clock.h"
#include "tests/support/recording_logger.h"
#include "tests/support/seeded_rng.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/status_matchers.h"

namespace towline::slots {

// What of a table survives a restart.
struct Saved {
  std::vector<Slot> slots;
  Lsn first_retained = 0;
  bool unknown = false;

  friend bool operator==(const Saved&, const Saved&) = default;
};

inline Saved SavedOf(const SlotTable& table, uint64_t data_generation) {
  Saved saved{table.List(), table.first_retained(data_generation), table.unknown()};
  for (Slot& slot : saved.slots) {
    if (slot.state == SlotState::kActive) slot.state = SlotState::kInactive;
    slot.received_lsn = slot.applied_lsn = 0;
  }
  return saved;
}

class SlotTableTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    table_.reset();
    absl::StatusOr<std::unique_ptr<SlotTable>> table = SlotTable::Open(fs_, "/", clock_, rng_, logger_, limits_);
    ASSERT_THAT(table, test::IsOk());
    table_ = *std::move(table);
  }

  Session Begin(const std::string& name, uint64_t process = 1, uint64_t incarnation = 100) {
    uint64_t superseded = 0;
    absl::StatusOr<Session> session = table_->BeginSession(name, {process, incarnation}, &superseded);
    EXPECT_THAT(session, test::IsOk());
    return session.ok() ? *session : Session{};
  }

  static Ack AckOf(const Session& session, Lsn received, Lsn flushed, Lsn applied) {
    return {session.id, session.generation, received, flushed, applied};
  }

  // 100 bytes a record.
  static LogView Log(Lsn first, Lsn durable) {
    LogView log;
    log.first_lsn = first;
    log.durable_lsn = durable;
    log.bytes_behind = [durable](Lsn lsn) { return lsn >= durable ? 0 : (durable - lsn) * 100; };
    return log;
  }

  test::SimFileSystem fs_;
  test::FakeClock clock_;
  test::SeededRng rng_{1};
  test::RecordingLogger logger_;
  SlotLimits limits_;
  std::unique_ptr<SlotTable> table_;
};

}  // namespace towline::slots

#endif  // TOWLINE_TESTS_SLOTS_SLOT_TABLE_FIXTURE_H_
