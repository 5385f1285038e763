#include "ctl/import_tracker.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

#include "common/check.h"

namespace towline::ctl {
namespace {

// Reasons that say something about the line. With any other one the same element may be accepted later, or elsewhere,
// so that skipping it would lose it.
bool IsAboutTheLine(absl::string_view reason) {
  return reason == "record_too_large" || reason == "key_too_large" || reason == "condition_failed" ||
         reason == "request_too_old" || absl::StartsWith(reason, "invalid_") || absl::StartsWith(reason, "empty_");
}

}  // namespace

ImportTracker::ImportTracker(ImportCheckpoint start, bool keep_requests)
    : keep_requests_(keep_requests), done_(std::move(start)) {}

void ImportTracker::Add(Kind kind, uint64_t line, uint64_t offset, const v1::WriteRequest* request) {
  Item item{kind, line, offset, std::nullopt};
  if (keep_requests_ && request != nullptr) item.request = *request;
  MutexLock lock(&mutex_);
  items_.push_back(std::move(item));
  if (kind == Kind::kSent) ++unanswered_;
  PopUnsent();
}

std::vector<v1::WriteRequest> ImportTracker::BeginStream() {
  MutexLock lock(&mutex_);
  blocked_ = absl::OkStatus();
  std::vector<v1::WriteRequest> requests;
  for (const Item& item : items_) {
    if (item.kind != Kind::kSent) continue;
    TOWLINE_CHECK(item.request.has_value());
    requests.push_back(*item.request);
  }
  return requests;
}

void ImportTracker::OnAnswer(const client::WriteStreamAnswer& answer, const OnRefused& on_refused) {
  MutexLock lock(&mutex_);
  if (!blocked_.ok()) return;
  size_t next_refused = 0;
  for (uint64_t sequence = answer.first_sequence; sequence <= answer.last_sequence; ++sequence) {
    PopUnsent();
    TOWLINE_CHECK(!items_.empty());
    if (next_refused < answer.refused.size() && answer.refused[next_refused].sequence == sequence) {
      const ErrorInfo& error = answer.refused[next_refused++].error;
      if (!IsAboutTheLine(error.reason)) {
        blocked_ = MakeError(absl::StatusCode::kUnavailable, error);
        return;
      }
      on_refused(items_.front().line, error);
      items_.front().kind = Kind::kRejected;
      --unanswered_;
      continue;  // popped with the next one
    }
    ++done_.acked;
    --unanswered_;
    Pop();
  }
  PopUnsent();
  if (answer.position.has_value()) {
    done_.term = answer.position->term();
    done_.lsn = answer.position->lsn();
  }
}

void ImportTracker::Pop() {
  done_.last_acked_line = items_.front().line;
  done_.offset = items_.front().offset;
  items_.pop_front();
}

void ImportTracker::PopUnsent() {
  while (!items_.empty() && items_.front().kind != Kind::kSent) {
    if (items_.front().kind == Kind::kRejected) ++done_.rejected;
    Pop();
  }
}

absl::Status ImportTracker::blocked() const {
  MutexLock lock(&mutex_);
  return blocked_;
}

ImportCheckpoint ImportTracker::Snapshot() const {
  MutexLock lock(&mutex_);
  return done_;
}

uint64_t ImportTracker::unanswered() const {
  MutexLock lock(&mutex_);
  return unanswered_;
}

}  // namespace towline::ctl
