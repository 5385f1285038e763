#include "server/kv_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "client/rpc_status.h"
#include "common/error.h"
#include "primary/write_intake.h"
#include "server/bookmark.h"
#include "server/durability.h"
#include "server/position_proto.h"
#include "server/rpc_call.h"
#include "server/run_on_pool.h"
#include "server/write_stream_call.h"

namespace towline {
namespace {

constexpr int kBatchGetMax = 10000;
constexpr uint32_t kScanLimitDefault = 1000;
constexpr uint32_t kScanLimitMax = 10000;
constexpr size_t kPageBytesMax = 2 << 20;

uint64_t NowMs(Node& node) { return static_cast<uint64_t>(node.clock().WallMicros()) / 1000; }

using WriteCall = UnaryCall<v1::WriteRequest, v1::WriteResponse>;

// Calls that may arrive in one burst before the queue's thread takes the first.
constexpr int kArmedWrites = 64;

// One unary write: through the sequencer, then, durable here, to its commit level.
class UnaryWriteJob final : public WriteJob, public CommitWaiter {
 public:
  UnaryWriteJob(Node& node, PrimaryRole& role, WriteCall* call) : node_(node), role_(role), call_(call) {}

  // Checks the request and makes the record of it. Nothing is logged if it fails.
  absl::Status Prepare() {
    const v1::WriteRequest& request = call_->request();
    TOWLINE_ASSIGN_OR_RETURN(level_,
                             ResolveLevel(role_.commit(), request.has_durability() ? &request.durability() : nullptr));
    if (level_.replicas != 0) interest_.emplace(role_.commit(), level_.stage);
    return BuildWriteRecord(request, NowMs(node_), node_.config().limits_record_bytes, &records.emplace_back());
  }

  // Hands it on, now or when flow control lets it.
  static void Start(std::unique_ptr<UnaryWriteJob> job) {
    UnaryWriteJob* const raw = job.get();
    absl::Status refused;
    const auto resume = [&job]() -> FlowControl::Resume {
      // std::function copies what it holds.
      auto waiting = std::make_shared<std::unique_ptr<UnaryWriteJob>>(std::move(job));
      return [waiting](const absl::Status& status) {
        if (!status.ok()) return Refuse(std::move(*waiting), status);
        Submit(std::move(*waiting), Sequencer::Wake::kNow);
      };
    };
    switch (raw->role_.flow().Admit(raw->records[0].payload.size(), resume, &refused)) {
      case FlowControl::Admission::kGo:
        return Submit(std::move(job), Sequencer::Wake::kAtKick);
      case FlowControl::Admission::kWait:
        return;
      case FlowControl::Admission::kRefused:
        return Refuse(std::move(job), refused);
    }
  }

  static void Refuse(std::unique_ptr<UnaryWriteJob> job, const absl::Status& status) {
    WriteCall* const call = job->call_;
    job.reset();
    call->Finish(WithOutcome(status, "not_logged"));
  }

  void OnDone(std::unique_ptr<WriteJob> self) override {
    std::unique_ptr<UnaryWriteJob> job(static_cast<UnaryWriteJob*>(self.release()));
    if (!records[0].outcome.status.ok()) {
      WriteCall* const call = call_;
      const absl::Status error = ErrorOf(records[0]);
      job.reset();
      return call->Finish(error);
    }
    const Lsn lsn = records[0].outcome.position.lsn;
    role_.commit().Await(lsn, lsn, level_, bytes, std::move(job));
  }

  void OnCommit(std::unique_ptr<CommitWaiter> self, const CommitResult& result) override {
    const absl::Status status = Answer(result);
    WriteCall* const call = call_;
    self.reset();
    call->Finish(status);
  }

 private:
  static void Submit(std::unique_ptr<UnaryWriteJob> job, Sequencer::Wake wake) {
    PrimaryRole& role = job->role_;
    std::unique_ptr<WriteJob> submitted = std::move(job);
    const absl::Status status = role.sequencer().Submit(&submitted, wake);
    if (status.ok()) return;
    Refuse(std::unique_ptr<UnaryWriteJob>(static_cast<UnaryWriteJob*>(submitted.release())), status);
  }

  absl::Status Answer(const CommitResult& result) {
    const WriteOutcome& outcome = records[0].outcome;
    v1::WriteResponse* const response = call_->response();
    FillOutcomePosition(node_, outcome, response->mutable_position());
    const bool accepted = result.end == CommitResult::End::kTimedOut && level_.on_timeout == OnCommitTimeout::kAccept;
    if (result.end != CommitResult::End::kReached && !accepted) {
      return NotReached(result, result.achieved, level_, response->position());
    }
    response->set_duplicate(outcome.duplicate);
    response->set_committed_lsn(node_.CommittedLsn());
    FillAchieved(result.achieved, response->mutable_achieved());
    return absl::OkStatus();
  }

  Node& node_;
  PrimaryRole& role_;
  WriteCall* const call_;
  CommitLevel level_;
  std::optional<CommitInterest> interest_;
};

absl::Status CheckKey(absl::string_view key) {
  if (!key.empty() && key.size() <= kKeySizeMax) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_key",
                   absl::StrCat("the key has ", key.size(), " bytes; a key has 1 to ", kKeySizeMax));
}

void FillEntry(const StoredEntry& entry, v1::Entry* out) {
  out->set_key(entry.key);
  out->set_value(entry.value);
  out->set_expire_at_ms(entry.expire_at_ms);
  out->set_modified_lsn(entry.modified_lsn);
}

// A snapshot of the live state, for readers of more than one key.
absl::StatusOr<PinnedState> PinLive(Node& node) {
  TOWLINE_RETURN_IF_ERROR(node.CheckReadable());
  TOWLINE_RETURN_IF_ERROR(AwaitAnswered(node));
  PinnedState pinned;
  pinned.live = node.Live();
  TOWLINE_ASSIGN_OR_RETURN(pinned.snapshot, pinned.live->state().Snapshot());
  return pinned;
}

absl::Status DoGet(Node& node, const v1::GetRequest& request, v1::GetResponse* response) {
  TOWLINE_RETURN_IF_ERROR(CheckKey(request.key()));
  TOWLINE_RETURN_IF_ERROR(node.CheckReadable());
  TOWLINE_RETURN_IF_ERROR(AwaitBookmark(node, request));
  TOWLINE_RETURN_IF_ERROR(AwaitAnswered(node));
  const auto live = node.Live();
  // The position is read first: the state read afterwards is at least as new.
  const Position position = live->state().applied();
  TOWLINE_ASSIGN_OR_RETURN(const auto entry, live->state().Get(request.key(), NowMs(node)));
  if (entry) FillEntry(*entry, response->mutable_entry());
  FillPosition(node.View().cluster_id, position, response->mutable_position());
  return absl::OkStatus();
}

absl::Status DoBatchGet(Node& node, const v1::BatchGetRequest& request, v1::BatchGetResponse* response) {
  if (request.keys_size() > kBatchGetMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "too_many_keys",
                     absl::StrCat(request.keys_size(), " keys; the limit is ", kBatchGetMax), "split the request");
  }
  TOWLINE_RETURN_IF_ERROR(AwaitBookmark(node, request));
  TOWLINE_ASSIGN_OR_RETURN(const PinnedState pinned, PinLive(node));
  const uint64_t now_ms = NowMs(node);
  for (const std::string& key : request.keys()) {
    TOWLINE_RETURN_IF_ERROR(CheckKey(key));
    TOWLINE_ASSIGN_OR_RETURN(const auto entry, pinned.snapshot->Get(key, now_ms));
    if (entry) FillEntry(*entry, response->add_entries());
  }
  FillPosition(node.View().cluster_id, pinned.snapshot->position(), response->mutable_position());
  return absl::OkStatus();
}

// Where a page starts, and from which snapshot it is read: "<snapshot id or 0>:<base64 of the next key>".
struct PageToken {
  uint64_t snapshot_id = 0;
  std::string next_key;
};

absl::StatusOr<PageToken> DecodePageToken(const std::string& text) {
  PageToken token;
  if (text.empty()) return token;
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  if (!absl::SimpleHexAtoi(parts.first, &token.snapshot_id) ||
      !absl::WebSafeBase64Unescape(parts.second, &token.next_key)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_page_token", "the page token is malformed",
                     "pass next_page_token of the page before unchanged");
  }
  return token;
}

std::string EncodePageToken(const PageToken& token) {
  return absl::StrCat(absl::Hex(token.snapshot_id), ":", absl::WebSafeBase64Escape(token.next_key));
}

// First key behind all keys that start with `prefix`; empty = there is none.
std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

// Fills one page and returns the key of the next one, or empty.
absl::StatusOr<std::string> FillPage(const StateSnapshot& snapshot, const std::string& begin, const std::string& end,
                                     uint32_t limit, uint64_t now_ms, v1::ScanResponse* response) {
  size_t bytes = 0;
  const auto it = snapshot.Scan(begin, end, /*fill_cache=*/true);
  for (; it->Valid(); it->Next()) {
    if (IsExpired(it->expire_at_ms(), now_ms)) continue;
    if (static_cast<uint32_t>(response->entries_size()) == limit || bytes >= kPageBytesMax) {
      return std::string(it->key());
    }
    v1::Entry* const entry = response->add_entries();
    entry->set_key(it->key().data(), it->key().size());
    entry->set_value(it->value().data(), it->value().size());
    entry->set_expire_at_ms(it->expire_at_ms());
    entry->set_modified_lsn(it->modified_lsn());
    bytes += it->key().size() + it->value().size() + 32;
  }
  TOWLINE_RETURN_IF_ERROR(it->status());
  return std::string();
}

absl::Status DoScan(Node& node, ScanRegistry& scans, const v1::ScanRequest& request, v1::ScanResponse* response) {
  if (request.limit() > kScanLimitMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, "invalid_limit",
                     absl::StrCat("limit is ", request.limit(), "; at most ", kScanLimitMax));
  }
  TOWLINE_ASSIGN_OR_RETURN(PageToken token, DecodePageToken(request.page_token()));
  std::string begin = std::max({request.begin(), request.prefix(), token.next_key});
  std::string end = request.end();
  const std::string prefix_end = PrefixEnd(request.prefix());
  if (!prefix_end.empty() && (end.empty() || prefix_end < end)) end = prefix_end;

  PinnedState pinned;
  if (token.snapshot_id != 0) {
    TOWLINE_ASSIGN_OR_RETURN(pinned, scans.Use(token.snapshot_id));
  } else {
    if (token.next_key.empty()) TOWLINE_RETURN_IF_ERROR(AwaitBookmark(node, request));
    TOWLINE_ASSIGN_OR_RETURN(pinned, PinLive(node));
  }
  FillPosition(node.View().cluster_id, pinned.snapshot->position(), response->mutable_position());
  if (!end.empty() && begin >= end) return absl::OkStatus();
  const uint32_t limit = request.limit() == 0 ? kScanLimitDefault : request.limit();
  TOWLINE_ASSIGN_OR_RETURN(token.next_key, FillPage(*pinned.snapshot, begin, end, limit, NowMs(node), response));
  if (token.next_key.empty()) {
    if (token.snapshot_id != 0) scans.Remove(token.snapshot_id);
    return absl::OkStatus();
  }
  if (request.pinned() && token.snapshot_id == 0) {
    TOWLINE_ASSIGN_OR_RETURN(token.snapshot_id, scans.Add(pinned));
  }
  response->set_next_page_token(EncodePageToken(token));
  return absl::OkStatus();
}

}  // namespace

KvServiceImpl::KvServiceImpl(Node& node, WorkPool& reads)
    : node_(node), reads_(reads), scans_(node.clock(), node.rng()) {}

void KvServiceImpl::Serve(RpcQueue& queue) {
  using Service = v1::KvService::AsyncService;
  ServeUnary(
      queue, &service_, &Service::RequestWrite, [this](WriteCall* call) { Write(call); }, kArmedWrites);
  ServeWriteStream(queue, service_, node_);
  ServeOnPool(
      queue, &service_, &Service::RequestGet, reads_,
      [this](const v1::GetRequest& request, v1::GetResponse* response) { return DoGet(node_, request, response); });
  ServeOnPool(queue, &service_, &Service::RequestBatchGet, reads_,
              [this](const v1::BatchGetRequest& request, v1::BatchGetResponse* response) {
                return DoBatchGet(node_, request, response);
              });
  ServeOnPool(queue, &service_, &Service::RequestScan, reads_,
              [this](const v1::ScanRequest& request, v1::ScanResponse* response) {
                return DoScan(node_, scans_, request, response);
              });
  queue.AtEndOfRound([this] {
    if (Sequencer* const sequencer = node_.sequencer()) sequencer->Kick();
  });
}

void KvServiceImpl::Write(WriteCall* call) {
  if (const absl::Status status = node_.CheckTakesWrites(); !status.ok()) {
    return call->Finish(WithOutcome(status, "not_logged"));
  }
  auto job = std::make_unique<UnaryWriteJob>(node_, *node_.primary(), call);
  if (const absl::Status status = job->Prepare(); !status.ok()) return UnaryWriteJob::Refuse(std::move(job), status);
  UnaryWriteJob::Start(std::move(job));
}

}  // namespace towline
