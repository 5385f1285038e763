// A node in the process, over real gRPC on a loopback port: enough behaviour for the client's and the tools' tests, and
// switches for what a real node does only in trouble. No gRPC in the header.

#ifndef TOWLINE_TESTS_CTL_FAKE_SERVER_H_
#define TOWLINE_TESTS_CTL_FAKE_SERVER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/mutex.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/kv_service.pb.h"
#include "towline/v1/replication_service.pb.h"
#include "towline/v1/slot_service.pb.h"

namespace towline::testing {

// One answer to SaveSnapshot.
struct FakeSave {
  std::vector<v1::SaveSnapshotResponse> answers;
  absl::Status end;
};

// What the server holds and how it misbehaves. Guarded by `mutex`, also for tests.
struct FakeState {
  Mutex mutex;

  std::map<std::string, v1::Entry> entries;
  std::vector<v1::Record> log;  // log[i] has LSN i + 1
  std::map<std::string, v1::Slot> slots;
  std::map<std::string, v1::WriteResponse> request_ids;  // "client:sequence"
  v1::ForecastSlotsResponse forecast;                    // what ForecastSlots answers
  v1::GetStatusResponse status;                          // what GetStatus answers, with wal.durable_lsn filled in
  std::deque<v1::GetStatusResponse> statuses;            // what GetStatus answers first, as they are
  std::deque<FakeSave> saves;                            // what SaveSnapshot answers, one after the other

  // Switches.
  absl::Status refuse_writes;               // Write and WriteStream
  absl::Status refuse_bootstrap;            // Bootstrap
  std::set<std::string> refused_keys;       // WriteStream: refused with reason record_too_large
  std::string busy_key;                     // WriteStream: refused once with reason queue_full
  uint64_t cut_stream_after = 0;            // WriteStream: end with UNAVAILABLE after so many elements, once; 0 = never
  bool hold_acks = false;                   // WriteStream: no answers until the client closes its side
  std::optional<v1::PullStarted> decision;  // Pull and PlanResume answer this
  bool slots_unknown = false;               // ListSlots says so
  uint32_t page_limit = 2;                  // Scan: at most so many entries in a page
  v1::PullStart own_start;                  // what DescribeStart answers
  std::deque<absl::Status> write_errors;    // Write: answered first, one after the other; OK = the write goes through
  int lose_answers = 0;                     // Write: so many are written, and answered UNAVAILABLE
  absl::Status refuse_reads;                // Get, BatchGet and Scan
  absl::Status refuse_bookmarks;            // the same, with min_position only
  uint64_t term = 1;                        // of new records and of the state's position
  v1::GetTopologyResponse topology;         // what GetTopology answers, if it has a term
  bool no_history = false;                  // GetHistory: UNAVAILABLE

  // What was seen.
  std::vector<v1::PullAck> acks;
  std::vector<v1::PullStart> starts;
  std::vector<v1::PlanResumeRequest> plans;
  std::vector<v1::RecoverRequest> recoveries;
  std::vector<v1::SaveSnapshotRequest> save_requests;
  uint64_t bootstraps = 0;  // Bootstrap calls; all but the first are told that a load runs already
  uint64_t streams = 0;     // WriteStream calls
  uint64_t stream_messages = 0;
  uint64_t stream_elements = 0;
  std::vector<v1::ScanRequest> scans;
  std::vector<v1::WriteRequest> writes;  // Write, also those that were refused
  std::vector<v1::GetRequest> gets;      // likewise
  uint64_t stream_durability = 0;        // WriteStream messages that say how durable
  std::vector<v1::ForecastSlotsRequest> forecasts;
};

class FakeServer {
 public:
  FakeServer();
  ~FakeServer();

  std::string endpoint() const;
  FakeState& state() { return state_; }

  // Sets keys directly, each by a record of its own.
  void Put(const std::string& key, const std::string& value);
  std::optional<std::string> Value(const std::string& key);

 private:
  struct Impl;
  FakeState state_;
  std::unique_ptr<Impl> impl_;
};

// Applies a request to the state as a record and returns its LSN; the caller holds the mutex.
uint64_t ApplyLocked(FakeState& state, const v1::WriteRequest& request);

}  // namespace towline::testing

#endif  // TOWLINE_TESTS_CTL_FAKE_SERVER_H_
