#include "ctl/batch_loader.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "store/rdb_load_plan.h"

namespace towline::ctl {
namespace {

// Large enough that what a record costs in the log does not matter, small enough that many are under way.
constexpr uint64_t kBatchBytes = 64 << 10;
constexpr int kBatchKeys = 1000;

}  // namespace

BatchLoader::BatchLoader(client::Client& client, uint64_t record_bytes_max)
    : batch_bytes_max_(std::min(kBatchBytes, record_bytes_max)),
      stream_(client.OpenWriteStream(client::WriteStreamOptions(),
                                     [this](const client::WriteStreamAnswer& answer) { OnAnswer(answer); })) {}

absl::Status BatchLoader::Add(absl::string_view key, absl::string_view value, uint64_t expire_at_ms, uint64_t offset) {
  const uint64_t size = EncodedPutSize(key, value, expire_at_ms);
  const bool full =
      EncodedRecordSize(request_bytes_ + size) > batch_bytes_max_ || request_.operations_size() == kBatchKeys;
  if (full) TOWLINE_RETURN_IF_ERROR(Flush());
  v1::Put* const put = request_.add_operations()->mutable_put();
  put->set_key(key.data(), key.size());
  put->set_value(value.data(), value.size());
  put->set_expire_at_ms(expire_at_ms);
  request_bytes_ += size;
  ++gathered_.keys;
  gathered_.bytes += key.size() + value.size();
  gathered_.offset = offset;
  return absl::OkStatus();
}

absl::Status BatchLoader::Flush() {
  TOWLINE_RETURN_IF_ERROR(refused());
  if (gathered_.keys == 0) return absl::OkStatus();
  {
    MutexLock lock(&mutex_);
    unanswered_.push_back(gathered_);
  }
  gathered_ = Batch();
  request_bytes_ = 0;
  v1::WriteRequest request;
  request.Swap(&request_);
  return stream_->Add(std::move(request)).status();
}

absl::Status BatchLoader::Finish() {
  const absl::Status flushed = Flush();
  const absl::Status end = stream_->Finish();
  TOWLINE_RETURN_IF_ERROR(refused());
  return flushed.ok() ? end : flushed;
}

void BatchLoader::OnAnswer(const client::WriteStreamAnswer& answer) {
  MutexLock lock(&mutex_);
  size_t next_refused = 0;
  for (uint64_t sequence = answer.first_sequence; sequence <= answer.last_sequence; ++sequence) {
    const Batch batch = unanswered_.front();
    unanswered_.pop_front();
    if (next_refused < answer.refused.size() && answer.refused[next_refused].sequence == sequence) {
      const ErrorInfo& error = answer.refused[next_refused++].error;
      if (refused_.ok()) refused_ = MakeError(absl::StatusCode::kUnavailable, error);
      continue;
    }
    acked_.keys += batch.keys;
    acked_.bytes += batch.bytes;
    acked_.offset = batch.offset;
  }
  if (answer.position.has_value()) acked_.position = answer.position;
}

absl::Status BatchLoader::refused() const {
  MutexLock lock(&mutex_);
  return refused_;
}

BatchLoader::Acked BatchLoader::acked() const {
  MutexLock lock(&mutex_);
  return acked_;
}

}  // namespace towline::ctl
