#include "towline/write_set.h"

#include "client/bookmark_proto.h"
#include "towline/v1/kv_service.pb.h"

namespace towline {
namespace {

void Set(absl::string_view from, std::string* to) { to->assign(from.data(), from.size()); }

v1::Condition& AddCondition(v1::WriteRequest& request, absl::string_view key) {
  v1::Condition* condition = request.add_conditions();
  Set(key, condition->mutable_key());
  return *condition;
}

}  // namespace

WriteSet::WriteSet() : request_(std::make_unique<v1::WriteRequest>()) {}
WriteSet::~WriteSet() = default;
WriteSet::WriteSet(const WriteSet& other) : request_(std::make_unique<v1::WriteRequest>(*other.request_)) {}
WriteSet& WriteSet::operator=(const WriteSet& other) {
  if (this != &other) request_ = std::make_unique<v1::WriteRequest>(*other.request_);
  return *this;
}
WriteSet::WriteSet(WriteSet&& other) noexcept = default;
WriteSet& WriteSet::operator=(WriteSet&& other) noexcept = default;

WriteSet& WriteSet::Put(absl::string_view key, absl::string_view value) {
  v1::Put* put = request_->add_operations()->mutable_put();
  Set(key, put->mutable_key());
  Set(value, put->mutable_value());
  return *this;
}

WriteSet& WriteSet::Put(absl::string_view key, absl::string_view value, std::chrono::milliseconds ttl) {
  Put(key, value);
  // Less than 1 ms would be no time to live at all.
  const int64_t ttl_ms = ttl.count() < 1 ? 1 : ttl.count();
  request_->mutable_operations(request_->operations_size() - 1)
      ->mutable_put()
      ->set_ttl_ms(static_cast<uint64_t>(ttl_ms));
  return *this;
}

WriteSet& WriteSet::Delete(absl::string_view key) {
  Set(key, request_->add_operations()->mutable_delete_()->mutable_key());
  return *this;
}

WriteSet& WriteSet::DeleteRange(absl::string_view begin, absl::string_view end) {
  v1::DeleteRange* range = request_->add_operations()->mutable_delete_range();
  Set(begin, range->mutable_begin());
  Set(end, range->mutable_end());
  return *this;
}

WriteSet& WriteSet::Message(absl::string_view topic, absl::string_view payload) {
  v1::Message* message = request_->add_operations()->mutable_message();
  Set(topic, message->mutable_topic());
  Set(payload, message->mutable_payload());
  return *this;
}

WriteSet& WriteSet::IfExists(absl::string_view key) {
  AddCondition(*request_, key).set_exists(true);
  return *this;
}

WriteSet& WriteSet::IfAbsent(absl::string_view key) {
  AddCondition(*request_, key).set_exists(false);
  return *this;
}

WriteSet& WriteSet::IfModifiedAt(absl::string_view key, uint64_t lsn) {
  AddCondition(*request_, key).set_modified_lsn(lsn);
  return *this;
}

WriteSet& WriteSet::Durability(const WriteDurability& durability) {
  *request_->mutable_durability() = ToProto(durability);
  return *this;
}

WriteSet& WriteSet::RequestId(absl::string_view client_id, uint64_t sequence) {
  Set(client_id, request_->mutable_request_id()->mutable_client_id());
  request_->mutable_request_id()->set_sequence(sequence);
  return *this;
}

}  // namespace towline
