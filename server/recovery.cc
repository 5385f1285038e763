#include "server/recovery.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/history.h"
#include "replica/pull_messages.h"
#include "replica/pull_stage.h"

namespace towline {
namespace {

constexpr int64_t kReadMicros = 250'000;
constexpr absl::string_view kSlotSuffix = "-catch-up";
constexpr size_t kNameSizeMax = 63;  // common/names.h

absl::Status Refused(const std::string& endpoint, absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "recovery_refused",
                   absl::StrCat(endpoint, " cannot give back what was lost: ", why),
                   "recover from another member, or give the records up: towctl recover --accept-loss");
}

absl::Status Interrupted(const std::string& endpoint, absl::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable, "recovery_interrupted",
                   absl::StrCat("the stream from ", endpoint, " ended: ", why), "run towctl recover again; it goes on");
}

absl::Status AwaitStarted(Upstream& upstream, PullStream& stream, int64_t timeout_micros, Clock& clock,
                          const std::function<bool()>& stopping, v1::PullStarted* started) {
  const int64_t deadline = clock.MonotonicMicros() + timeout_micros;
  v1::PullResponse message;
  while (true) {
    if (stopping()) return Interrupted(upstream.endpoint(), "the node is stopping");
    switch (stream.Read(&message, kReadMicros)) {
      case ReadResult::kTimeout:
        if (clock.MonotonicMicros() < deadline) continue;
        return Interrupted(upstream.endpoint(), "no answer to the start message");
      case ReadResult::kClosed:
        return Interrupted(upstream.endpoint(), stream.Finish().message());
      case ReadResult::kMessage:
        break;
    }
    if (!message.has_started()) return Interrupted(upstream.endpoint(), "the first answer is not a decision");
    *started = message.started();
    return absl::OkStatus();
  }
}

absl::Status CheckStarted(const std::string& endpoint, const Control& control, Lsn next,
                          const v1::PullStarted& started) {
  if (started.decision() != v1::RESUME_DECISION_PARTIAL) {
    return Refused(endpoint, absl::StrCat(started.reason(), ": ", started.message()));
  }
  if (started.cluster_id() != control.cluster_id) {
    return Refused(endpoint,
                   absl::StrCat("it is of cluster ", started.cluster_id(), ", this node of ", control.cluster_id));
  }
  if (started.session_id() == 0 || started.from_lsn() != next) {
    return Refused(endpoint, absl::StrCat("it would send from LSN ", started.from_lsn(), " on, needed is ", next));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PullLostRecords(ReplicaHost& host, Upstream& upstream, const ReplicaOptions& options,
                             const std::function<bool()>& stopping) {
  const std::shared_ptr<Generation> live = host.LiveGeneration();
  const Control control = host.control().Get();
  v1::PullRequest request;
  *request.mutable_start() = MakePullStart(control, live.get(), options);
  // Nothing of this may stay behind over there, and this node may have a slot of its own name there.
  request.mutable_start()->set_slot(options.node_id.substr(0, kNameSizeMax - kSlotSuffix.size()) +
                                    std::string(kSlotSuffix));
  request.mutable_start()->set_temporary(true);
  const std::unique_ptr<PullStream> stream = upstream.OpenPull();
  if (!stream->Write(request)) return Interrupted(upstream.endpoint(), stream->Finish().message());
  v1::PullStarted started;
  TOWLINE_RETURN_IF_ERROR(
      AwaitStarted(upstream, *stream, options.upstream_timeout_micros, host.environment().clock, stopping, &started));
  TOWLINE_RETURN_IF_ERROR(CheckStarted(upstream.endpoint(), control, live->spool().end().lsn + 1, started));

  const Lsn target = started.durable_lsn();
  absl::Status end;
  {
    PullStage stage(host, options, *stream, {live, control.history}, started);
    while (end.ok() && stage.progress().applied_lsn < target) {
      if (stopping()) end = Interrupted(upstream.endpoint(), "the node is stopping");
      if (!end.ok()) break;
      const StageResult result = stage.Step();
      switch (result.kind) {
        case StageResult::Kind::kGoOn:
          break;
        case StageResult::Kind::kBadFrames:
          end = Refused(upstream.endpoint(),
                        absl::StrCat(GetErrorInfo(result.status).reason, ": ", GetErrorInfo(result.status).message));
          break;
        case StageResult::Kind::kFatal:
          end = result.status;
          break;
        default:
          end = Interrupted(upstream.endpoint(), result.status.message());
          break;
      }
    }
  }
  stream->Cancel();
  (void)stream->Finish();
  return end;
}

absl::Status BeginTermAtEnd(ReplicaHost& host) {
  const Lsn end = host.LiveGeneration()->spool().end().lsn;
  const uint64_t term_id = NewId(host.environment().rng);
  return host.control().Update(/*both=*/true, [&](Control& control) {
    if (control.role != NodeRole::kPrimary) return;  // fenced meanwhile
    const Term term = std::max(control.history.empty() ? 0 : control.history.back().term, control.promised_term) + 1;
    control.history = CutAt(control.history, end);
    control.history.push_back({term, end + 1, term_id});
    control.term_primary = control.node_id;
    control.recovery = RecoveryState::kNone;
    control.recovery_reason.clear();
  });
}

}  // namespace towline
