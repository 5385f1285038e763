// towline::Client: plain values in front of ClusterClient.

#include <utility>

#include "client/bookmark_proto.h"
#include "client/cluster_client.h"
#include "client/scan_pages.h"
#include "client/stream_batcher.h"
#include "towline/client.h"

namespace towline {
namespace {

KeyValue ToKeyValue(v1::Entry&& entry) {
  return {std::move(*entry.mutable_key()), std::move(*entry.mutable_value()), entry.expire_at_ms(),
          entry.modified_lsn()};
}

class PageScanner final : public Scanner {
 public:
  PageScanner(client::ClusterClient& cluster, v1::ScanRequest range, client::CallRoute route)
      : pages_(cluster, std::move(range), std::move(route)) {}

  bool Next() override {
    while (next_ == page_.entries_size()) {
      auto more = pages_.Next(&page_);
      next_ = 0;
      if (more.ok() && *more) continue;
      page_.clear_entries();
      status_ = more.status();
      return false;
    }
    entry_ = ToKeyValue(std::move(*page_.mutable_entries(next_++)));
    return true;
  }
  const KeyValue& entry() const override { return entry_; }
  const absl::Status& status() const override { return status_; }
  Bookmark position() const override { return FromProto(page_.position()); }

 private:
  client::ScanPages pages_;
  v1::ScanResponse page_;
  int next_ = 0;
  KeyValue entry_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Make(const ClientOptions& options) {
  auto cluster = client::ClusterClient::Make(options);
  if (!cluster.ok()) return cluster.status();
  return std::unique_ptr<Client>(new Client(*std::move(cluster)));
}

Client::Client(std::unique_ptr<client::ClusterClient> cluster) : cluster_(std::move(cluster)) {}
Client::~Client() = default;

absl::StatusOr<WriteAnswer> Client::Put(absl::string_view key, absl::string_view value, const CallOptions& options) {
  WriteSet writes;
  writes.Put(key, value);
  return Write(std::move(writes), options);
}

absl::StatusOr<WriteAnswer> Client::Delete(absl::string_view key, const CallOptions& options) {
  WriteSet writes;
  writes.Delete(key);
  return Write(std::move(writes), options);
}

absl::StatusOr<WriteAnswer> Client::Write(WriteSet writes, const CallOptions& options) {
  auto written = cluster_->Write(std::move(writes.request()), cluster_->Route(options));
  if (!written.ok()) return written.status();
  const v1::WriteResponse& response = written->response;
  WriteAnswer answer;
  answer.position = FromProto(response.position());
  answer.duplicate = response.duplicate();
  answer.committed_lsn = response.committed_lsn();
  answer.replicas_flushed = response.achieved().replicas_flushed();
  answer.replicas_applied = response.achieved().replicas_applied();
  answer.level_reached = !response.has_achieved() || response.achieved().reached();
  answer.endpoint = std::move(written->endpoint);
  return answer;
}

std::unique_ptr<WriteBatcher> Client::NewBatcher(const BatcherOptions& options, OnRecordAnswer on_answer) {
  return client::NewStreamBatcher(*cluster_, options, std::move(on_answer));
}

absl::StatusOr<GetAnswer> Client::Get(absl::string_view key, const CallOptions& options) {
  v1::GetRequest request;
  request.set_key(key.data(), key.size());
  auto read = cluster_->Get(std::move(request), cluster_->Route(options));
  if (!read.ok()) return read.status();
  GetAnswer answer;
  if (read->response.has_entry()) answer.entry = ToKeyValue(std::move(*read->response.mutable_entry()));
  answer.position = FromProto(read->response.position());
  answer.endpoint = std::move(read->endpoint);
  return answer;
}

absl::StatusOr<BatchGetAnswer> Client::BatchGet(const std::vector<std::string>& keys, const CallOptions& options) {
  v1::BatchGetRequest request;
  for (const std::string& key : keys) request.add_keys(key);
  auto read = cluster_->BatchGet(std::move(request), cluster_->Route(options));
  if (!read.ok()) return read.status();
  BatchGetAnswer answer;
  for (v1::Entry& entry : *read->response.mutable_entries()) answer.entries.push_back(ToKeyValue(std::move(entry)));
  answer.position = FromProto(read->response.position());
  answer.endpoint = std::move(read->endpoint);
  return answer;
}

std::unique_ptr<Scanner> Client::Scan(const ScanRange& range, const CallOptions& options) {
  v1::ScanRequest request;
  request.set_prefix(range.prefix);
  request.set_begin(range.begin);
  request.set_end(range.end);
  request.set_limit(range.page_limit);
  request.set_pinned(range.pinned);
  return std::make_unique<PageScanner>(*cluster_, std::move(request), cluster_->Route(options));
}

Bookmark Client::session() const {
  const auto seen = cluster_->session().Get();
  return seen.has_value() ? FromProto(*seen) : Bookmark();
}

void Client::JoinSession(const Bookmark& bookmark) {
  if (!bookmark.empty()) cluster_->session().Cover(ToProto(bookmark));
}

void Client::ResetSession() { cluster_->session().Reset(); }

absl::StatusOr<ClusterView> Client::Topology(const CallOptions& options) {
  const auto topology = cluster_->Topology(cluster_->Route(options));
  if (!topology.ok()) return topology.status();
  ClusterView view{
      topology->cluster_id(), topology->term(), topology->primary_node_id(), topology->primary_address(), {}};
  for (const v1::Member& member : topology->members()) {
    view.members.push_back({member.node_id(), member.address(), member.counting()});
  }
  return view;
}

std::string Client::primary() const { return cluster_->known_primary(); }

const std::string& Client::client_id() const { return cluster_->client_id(); }

std::string ClientVersion() { return TOWLINE_VERSION; }

}  // namespace towline
