#include "server/following_upstream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "server/promotion_rules.h"
#include "towline/v1/replication_service.pb.h"

namespace towline {
namespace {

constexpr int64_t kLookAroundMicros = 300'000;

Term TermOf(const v1::Standing& standing) {
  return std::max(static_cast<Term>(standing.promised_term()), LastTermOf(standing));
}

const UpstreamCandidate* Find(const UpstreamQuestion& question, const std::string& endpoint) {
  for (const UpstreamCandidate& candidate : question.candidates) {
    if (candidate.endpoint == endpoint) return &candidate;
  }
  return nullptr;
}

bool IsPossible(const UpstreamQuestion& question, const UpstreamCandidate& candidate) {
  if (!candidate.standing.ok()) return false;
  const v1::Standing& standing = *candidate.standing;
  if (standing.node_id() == question.node_id || TermOf(standing) < question.promised_term) return false;
  return question.cluster_id.empty() || standing.cluster_id() == question.cluster_id;
}

bool IsOfOtherCluster(const UpstreamQuestion& question, const UpstreamCandidate& candidate) {
  if (!candidate.standing.ok() || question.cluster_id.empty() || candidate.standing->cluster_id().empty()) return false;
  return candidate.standing->cluster_id() != question.cluster_id;
}

bool IsServed(const v1::Standing& standing) {
  return standing.is_primary() || standing.state() == "streaming" || standing.state() == "catching_up" ||
         standing.state() == "bootstrapping" || standing.state() == "rewinding";
}

// The primary of the highest term; among two addresses of one node the configured one.
const UpstreamCandidate* FindPrimary(const UpstreamQuestion& question) {
  const UpstreamCandidate* best = nullptr;
  for (const UpstreamCandidate& candidate : question.candidates) {
    if (!IsPossible(question, candidate) || !candidate.standing->is_primary()) continue;
    if (best == nullptr || LastTermOf(*candidate.standing) > LastTermOf(*best->standing)) best = &candidate;
  }
  return best;
}

// What is opened while there is nobody to pull from.
class NoStream final : public PullStream {
 public:
  explicit NoStream(absl::Status why) : why_(std::move(why)) {}
  bool Write(const v1::PullRequest&) override { return false; }
  ReadResult Read(v1::PullResponse*, int64_t) override { return ReadResult::kClosed; }
  void Wake() override {}
  void Cancel() override {}
  absl::Status Finish() override { return why_; }

 private:
  const absl::Status why_;
};

}  // namespace

std::string ChooseUpstream(const UpstreamQuestion& question) {
  // A wrong --upstream is an operator's mistake, which is to be seen, not worked around.
  const UpstreamCandidate* const configured = Find(question, question.configured);
  if (configured != nullptr && IsOfOtherCluster(question, *configured)) return question.configured;
  const std::string& present = question.current.empty() ? question.configured : question.current;
  const UpstreamCandidate* const primary = FindPrimary(question);
  const UpstreamCandidate* const current = Find(question, present);
  if (primary == nullptr) {
    // Whoever promised the next term has nobody to pull from until its primary is there.
    if (!question.awaited.empty()) return "";
    return present;
  }
  if (current == nullptr || present.empty()) return primary->endpoint;
  if (IsPossible(question, *current)) {
    const v1::Standing& standing = *current->standing;
    const bool same = standing.node_id() == primary->standing->node_id();
    // One that was the primary and is none any more is left for the one that is; so is a replica that nobody serves,
    // which may well wait for this one.
    return same || (!question.current_was_primary && IsServed(standing)) ? present : primary->endpoint;
  }
  // The same node by another way is no better: somebody chose this way.
  const bool same = question.current_node == primary->standing->node_id();
  return !current->standing.ok() && same ? present : primary->endpoint;
}

FollowingUpstream::FollowingUpstream(std::string configured, bool follow, std::function<OwnStanding()> own,
                                     PeerCalls& peers,
                                     std::function<std::unique_ptr<Upstream>(const std::string& endpoint)> make,
                                     Logger& logger)
    : configured_(std::move(configured)),
      follow_(follow),
      own_(std::move(own)),
      peers_(peers),
      make_(std::move(make)),
      logger_(logger) {}

void FollowingUpstream::Prefer(const std::string& endpoint) {
  MutexLock lock(&mutex_);
  preferred_ = endpoint;
}

std::string FollowingUpstream::endpoint() const {
  MutexLock lock(&mutex_);
  return current_.empty() ? configured_ : current_;
}

absl::Status FollowingUpstream::Choose() {
  const OwnStanding own = own_();
  UpstreamQuestion question;
  question.node_id = own.node_id;
  question.cluster_id = own.cluster_id;
  question.promised_term = own.promised_term;
  question.awaited = own.awaited;
  question.configured = configured_;
  std::vector<std::string> endpoints = {configured_};
  {
    MutexLock lock(&mutex_);
    question.current = current_;
    question.current_was_primary = current_was_primary_;
    question.current_node = current_node_;
    endpoints.push_back(current_);
    endpoints.push_back(preferred_);
  }
  endpoints.insert(endpoints.end(), own.member_addresses.begin(), own.member_addresses.end());
  std::vector<std::string> asked;
  for (const std::string& endpoint : endpoints) {
    if (!endpoint.empty() && std::find(asked.begin(), asked.end(), endpoint) == asked.end()) asked.push_back(endpoint);
  }
  std::vector<absl::StatusOr<v1::Standing>> answers = peers_.AskStandings(asked, kLookAroundMicros);
  for (size_t i = 0; i < asked.size(); ++i) question.candidates.push_back({asked[i], std::move(answers[i])});
  const std::string chosen = follow_ || configured_.empty() ? ChooseUpstream(question) : configured_;
  if (chosen.empty() && own.awaited.empty()) {
    return MakeError(absl::StatusCode::kUnavailable, "no_primary",
                     "no upstream is configured, and no member says that it is the primary",
                     "promote a member, or restart this node with --upstream");
  }
  if (chosen.empty()) {
    return MakeError(
        absl::StatusCode::kUnavailable, "promotion_awaited",
        absl::StrCat("term ", own.promised_term, " is promised to ", own.awaited, ", which is not the primary yet"),
        "if it does not become so, promote another node");
  }
  const UpstreamCandidate* const candidate = Find(question, chosen);
  const std::string before = question.current.empty() ? configured_ : question.current;
  if (chosen != before) {
    logger_.Log(LogLevel::kInfo, "upstream_changed", {{"from", before}, {"to", chosen}});
  }
  MutexLock lock(&mutex_);
  if (candidate != nullptr && candidate->standing.ok()) {
    current_node_ = candidate->standing->node_id();
    // What was chosen as the primary stays that until another one is chosen.
    if (chosen != current_ || candidate->standing->is_primary()) {
      current_was_primary_ = candidate->standing->is_primary();
    }
  }
  if (chosen != current_ || upstream_ == nullptr) upstream_ = make_(chosen);
  current_ = chosen;
  return absl::OkStatus();
}

std::shared_ptr<Upstream> FollowingUpstream::Present() {
  MutexLock lock(&mutex_);
  return upstream_;
}

std::unique_ptr<PullStream> FollowingUpstream::OpenPull() {
  const absl::Status chosen = Choose();
  if (!chosen.ok()) return std::make_unique<NoStream>(chosen);
  return Present()->OpenPull();
}

std::unique_ptr<SnapshotStream> FollowingUpstream::OpenSnapshot(const v1::FetchSnapshotRequest& request) {
  return Present()->OpenSnapshot(request);  // a stream told to load one
}

}  // namespace towline
