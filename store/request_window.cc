#include "store/request_window.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/bytes.h"
#include "common/error.h"
#include "common/names.h"
#include "store/state_format.h"

namespace towline {
namespace {

constexpr size_t kLsnSize = 8;
constexpr size_t kFloorSize = 16;
constexpr uint8_t kReservedVersion = 1;
constexpr int kHighestLooksMax = 1024;

std::string LsnValue(Lsn lsn) {
  std::string out;
  ByteWriter(&out).U64(lsn);
  return out;
}

std::string FloorValue(const RequestFloor& floor) {
  std::string out;
  ByteWriter writer(&out);
  writer.U64(floor.sequence);
  writer.U64(floor.lsn);
  return out;
}

// The value of an 'r' key.
std::string RequestValue(uint64_t sequence, absl::string_view client_id) {
  std::string out;
  ByteWriter writer(&out);
  writer.U64(sequence);
  writer.Bytes(client_id);
  return out;
}

absl::StatusOr<RequestFloor> ParseFloor(absl::string_view raw, absl::string_view engine_key) {
  if (raw.size() != kFloorSize) return StateMalformed("request floor has a wrong size", engine_key);
  return RequestFloor{LoadLe<uint64_t>(raw.data()), LoadLe<uint64_t>(raw.data() + 8)};
}

absl::StatusOr<std::optional<RequestFloor>> ReadFloor(Store& store, absl::string_view client_id) {
  const std::string key = FloorKey(client_id);
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<std::string> raw, store.Get(key));
  if (!raw.has_value()) return std::optional<RequestFloor>();
  TOWLINE_ASSIGN_OR_RETURN(const RequestFloor floor, ParseFloor(*raw, key));
  return std::optional<RequestFloor>(floor);
}

absl::Status ReservedMalformed(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "reserved_malformed",
                   absl::StrCat("the request window of the snapshot is malformed: ", what), "start the snapshot again");
}

}  // namespace

void RequestUpdates::Add(absl::string_view client_id, uint64_t sequence, Lsn lsn) {
  batch_.Put(RequestKey(client_id, sequence), LsnValue(lsn));
  batch_.Put(RequestLsnKey(lsn), RequestValue(sequence, client_id));
}

absl::Status RequestUpdates::AfterRecord(Lsn lsn) {
  if (lsn % kRequestEvictionInterval == 0 && lsn > kRequestWindow) {
    // Everything up to lsn - kRequestWindow goes; what is older than one interval went before.
    const Lsn last = lsn - kRequestWindow;
    const Lsn first = last > kRequestEvictionInterval ? last - kRequestEvictionInterval + 1 : 1;
    TOWLINE_RETURN_IF_ERROR(Evict(first, last));
  }
  if (lsn % kFloorSweepInterval == 0 && lsn > kFloorDistance) return SweepFloors(lsn);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RequestFloor>*> RequestUpdates::FloorOf(absl::string_view client_id) {
  auto it = floors_.find(client_id);
  if (it == floors_.end()) {
    TOWLINE_ASSIGN_OR_RETURN(std::optional<RequestFloor> floor, ReadFloor(store_, client_id));
    it = floors_.emplace(std::string(client_id), floor).first;
  }
  return &it->second;
}

absl::Status RequestUpdates::Evict(Lsn first, Lsn last) {
  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<const StoreSnapshot> snapshot, store_.Snapshot());
  const auto it = snapshot->NewIterator(RequestLsnKey(first), RequestLsnKey(last + 1), /*fill_cache=*/false);
  for (; it->Valid(); it->Next()) {
    if (it->key().size() != 1 + kLsnSize || it->value().size() < 8) {
      return StateMalformed("request entry has a wrong size", it->key());
    }
    const Lsn lsn = LoadBe64(it->key().data() + 1);
    const uint64_t sequence = LoadLe<uint64_t>(it->value().data());
    const absl::string_view client_id = it->value().substr(8);
    TOWLINE_ASSIGN_OR_RETURN(std::optional<RequestFloor>* const floor, FloorOf(client_id));
    if (!floor->has_value()) floor->emplace();
    (*floor)->sequence = std::max((*floor)->sequence, sequence);
    (*floor)->lsn = std::max((*floor)->lsn, lsn);
    batch_.Delete(RequestKey(client_id, sequence));
    batch_.Delete(it->key());
  }
  return it->status();
}

absl::Status RequestUpdates::SweepFloors(Lsn lsn) {
  for (auto& [client_id, floor] : floors_) {
    if (floor.has_value() && floor->lsn + kFloorDistance < lsn) floor.reset();
  }
  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<const StoreSnapshot> snapshot, store_.Snapshot());
  const std::string end(1, kFloorSpace + 1);
  const auto it = snapshot->NewIterator(FloorKey(""), end, /*fill_cache=*/false);
  for (; it->Valid(); it->Next()) {
    TOWLINE_ASSIGN_OR_RETURN(const RequestFloor floor, ParseFloor(it->value(), it->key()));
    const absl::string_view client_id = it->key().substr(1);
    if (floor.lsn + kFloorDistance < lsn && floors_.find(client_id) == floors_.end()) {
      floors_.emplace(std::string(client_id), std::nullopt);
    }
  }
  return it->status();
}

void RequestUpdates::Finish() {
  for (const auto& [client_id, floor] : floors_) {
    if (floor.has_value()) {
      batch_.Put(FloorKey(client_id), FloorValue(*floor));
    } else {
      batch_.Delete(FloorKey(client_id));
    }
  }
  floors_.clear();
}

absl::StatusOr<RequestLookup> FindRequest(Store& store, absl::string_view client_id, uint64_t sequence, Lsn applied) {
  const std::string key = RequestKey(client_id, sequence);
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<std::string> raw, store.Get(key));
  if (raw.has_value()) {
    if (raw->size() != kLsnSize) return StateMalformed("request entry has a wrong size", key);
    const Lsn lsn = LoadLe<uint64_t>(raw->data());
    if (applied > lsn && applied - lsn > kRequestWindow) return RequestLookup{RequestLookup::Outcome::kTooOld, 0};
    return RequestLookup{RequestLookup::Outcome::kSeen, lsn};
  }
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<RequestFloor> floor, ReadFloor(store, client_id));
  if (floor.has_value() && sequence <= floor->sequence) return RequestLookup{RequestLookup::Outcome::kTooOld, 0};
  return RequestLookup{};
}

absl::StatusOr<std::optional<uint64_t>> HighestRequest(Store& store, absl::string_view client_id, uint64_t from) {
  TOWLINE_ASSIGN_OR_RETURN(const std::shared_ptr<const StoreSnapshot> snapshot, store.Snapshot());
  const std::string end = RequestKey(client_id, std::numeric_limits<uint64_t>::max()) + '\0';
  const auto it = snapshot->NewIterator(RequestKey(client_id, from), end, /*fill_cache=*/false);
  uint64_t highest = from;
  for (int looked_at = 0; it->Valid(); it->Next(), ++looked_at) {
    absl::string_view id;
    if (looked_at == kHighestLooksMax) return std::optional<uint64_t>();
    if (!ParseRequestKey(it->key(), &id, &highest)) return StateMalformed("request key has a wrong size", it->key());
  }
  TOWLINE_RETURN_IF_ERROR(it->status());
  TOWLINE_ASSIGN_OR_RETURN(const std::optional<RequestFloor> floor, ReadFloor(store, client_id));
  return std::optional<uint64_t>(std::max(highest, floor.has_value() ? floor->sequence : 0));
}

namespace {

// The window in memory: what EncodeRequestWindow writes out.
struct ClientWindow {
  RequestFloor floor;
  std::vector<std::pair<uint64_t, Lsn>> requests;  // sequence, LSN; rising by sequence
};
using Window = std::map<std::string, ClientWindow, std::less<>>;

absl::Status LoadWindow(const StoreSnapshot& snapshot, Window* window) {
  const auto floors = snapshot.NewIterator(FloorKey(""), std::string(1, kFloorSpace + 1), /*fill_cache=*/false);
  for (; floors->Valid(); floors->Next()) {
    TOWLINE_ASSIGN_OR_RETURN(const RequestFloor floor, ParseFloor(floors->value(), floors->key()));
    (*window)[std::string(floors->key().substr(1))].floor = floor;
  }
  TOWLINE_RETURN_IF_ERROR(floors->status());

  const std::string begin(1, kRequestSpace);
  const auto requests = snapshot.NewIterator(begin, std::string(1, kRequestSpace + 1), /*fill_cache=*/false);
  auto client = window->end();
  for (; requests->Valid(); requests->Next()) {
    absl::string_view client_id;
    uint64_t sequence = 0;
    if (!ParseRequestKey(requests->key(), &client_id, &sequence) || requests->value().size() != kLsnSize) {
      return StateMalformed("request entry has a wrong size", requests->key());
    }
    if (client == window->end() || client->first != client_id) {
      client = window->try_emplace(std::string(client_id)).first;
    }
    client->second.requests.emplace_back(sequence, LoadLe<uint64_t>(requests->value().data()));
  }
  return requests->status();
}

}  // namespace

absl::StatusOr<std::string> EncodeRequestWindow(const StoreSnapshot& snapshot) {
  Window window;
  TOWLINE_RETURN_IF_ERROR(LoadWindow(snapshot, &window));
  std::string out(1, static_cast<char>(kReservedVersion));
  AppendVarint(window.size(), &out);
  for (const auto& [client_id, client] : window) {
    AppendVarint(client_id.size(), &out);
    out += client_id;
    AppendVarint(client.floor.sequence, &out);
    AppendVarint(client.floor.lsn, &out);
    AppendVarint(client.requests.size(), &out);
    uint64_t sequence = 0;
    Lsn lsn = 0;
    for (const auto& [next_sequence, next_lsn] : client.requests) {
      AppendVarint(next_sequence - sequence, &out);
      AppendVarint(ZigZag(static_cast<int64_t>(next_lsn - lsn)), &out);
      sequence = next_sequence;
      lsn = next_lsn;
    }
  }
  return out;
}

namespace {

absl::Status DecodeClient(absl::string_view* data, std::string* previous, const PutFunction& put) {
  uint64_t size = 0;
  if (!TakeVarint(data, &size) || size > data->size()) return ReservedMalformed("a client id is cut short");
  const std::string client_id(data->substr(0, size));
  data->remove_prefix(size);
  if (!ValidateName("client_id", client_id).ok()) return ReservedMalformed("a client id is not a valid name");
  if (client_id <= *previous) return ReservedMalformed("client ids are out of order");
  *previous = client_id;

  RequestFloor floor;
  uint64_t count = 0;
  if (!TakeVarint(data, &floor.sequence) || !TakeVarint(data, &floor.lsn) || !TakeVarint(data, &count)) {
    return ReservedMalformed("a client is cut short");
  }
  if (floor != RequestFloor{}) TOWLINE_RETURN_IF_ERROR(put(FloorKey(client_id), FloorValue(floor)));

  uint64_t sequence = 0;
  Lsn lsn = 0;
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t step = 0;
    uint64_t lsn_step = 0;
    if (!TakeVarint(data, &step) || !TakeVarint(data, &lsn_step)) return ReservedMalformed("a request is cut short");
    if (step == 0 || sequence + step < sequence) return ReservedMalformed("request sequences are out of order");
    sequence += step;
    lsn += static_cast<uint64_t>(UnZigZag(lsn_step));
    TOWLINE_RETURN_IF_ERROR(put(RequestKey(client_id, sequence), LsnValue(lsn)));
    TOWLINE_RETURN_IF_ERROR(put(RequestLsnKey(lsn), RequestValue(sequence, client_id)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodeRequestWindow(absl::string_view encoded, const PutFunction& put) {
  if (encoded.empty()) return ReservedMalformed("it is empty");
  if (static_cast<uint8_t>(encoded[0]) != kReservedVersion) {
    return ReservedMalformed(absl::StrCat("unknown version ", static_cast<uint8_t>(encoded[0])));
  }
  encoded.remove_prefix(1);
  uint64_t clients = 0;
  if (!TakeVarint(&encoded, &clients)) return ReservedMalformed("it is cut short");
  std::string previous;
  for (uint64_t i = 0; i < clients; ++i) TOWLINE_RETURN_IF_ERROR(DecodeClient(&encoded, &previous, put));
  return encoded.empty() ? absl::OkStatus() : ReservedMalformed("bytes follow the last client");
}

}  // namespace towline
