#include "tests/store/state_test_util.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/check.h"
#include "gtest/gtest.h"

namespace towline::test {

ChangeBuilder& ChangeBuilder::Put(absl::string_view key, absl::string_view value, uint64_t expire_at_ms) {
  v1::Put& put = *Add().mutable_put();
  put.set_key(std::string(key));
  put.set_value(std::string(value));
  put.set_expire_at_ms(expire_at_ms);
  return *this;
}

ChangeBuilder& ChangeBuilder::Delete(absl::string_view key) {
  Add().mutable_delete_()->set_key(std::string(key));
  return *this;
}

ChangeBuilder& ChangeBuilder::DeleteRange(absl::string_view begin, absl::string_view end) {
  v1::DeleteRange& range = *Add().mutable_delete_range();
  range.set_begin(std::string(begin));
  range.set_end(std::string(end));
  return *this;
}

ChangeBuilder& ChangeBuilder::Message(absl::string_view topic, absl::string_view payload) {
  v1::Message& message = *Add().mutable_message();
  message.set_topic(std::string(topic));
  message.set_payload(std::string(payload));
  return *this;
}

ChangeBuilder& ChangeBuilder::Request(absl::string_view client_id, uint64_t sequence) {
  v1::RequestId& id = *change_.mutable_batch()->mutable_request_id();
  id.set_client_id(std::string(client_id));
  id.set_sequence(sequence);
  return *this;
}

std::string TermStartPayload() {
  v1::Change change;
  change.mutable_term_start()->set_term(1);
  change.mutable_term_start()->set_term_id(42);
  return change.SerializeAsString();
}

std::string MembersPayload() {
  v1::Change change;
  change.mutable_members()->add_members()->set_node_id("p1");
  return change.SerializeAsString();
}

Lsn TestLog::Append(std::string payload) {
  const Lsn lsn = last() + 1;
  payloads_.push_back(std::move(payload));
  positions_.push_back({1, 42, lsn, lsn * 1000 + 7});
  return lsn;
}

std::vector<ApplyRecord> TestLog::Records(Lsn first, Lsn last) const {
  std::vector<ApplyRecord> records;
  for (Lsn lsn = first; lsn <= last; ++lsn) records.push_back({PositionAt(lsn), PayloadAt(lsn)});
  return records;
}

absl::Status ApplyRest(StateStore& store, const TestLog& log, size_t batch) {
  while (store.applied().lsn < log.last()) {
    const Lsn first = store.applied().lsn + 1;
    const absl::Status status = store.Apply(log.Records(first, std::min<Lsn>(first + batch - 1, log.last())));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void ApplyToModel(const std::string& payload, Lsn lsn, Model* model) {
  v1::Change change;
  TOWLINE_CHECK(change.ParseFromString(payload));
  for (const v1::Operation& operation : change.batch().operations()) {
    if (operation.has_put()) {
      (*model)[operation.put().key()] = {operation.put().value(), operation.put().expire_at_ms(), lsn};
    } else if (operation.has_delete_()) {
      model->erase(operation.delete_().key());
    } else if (operation.has_delete_range()) {
      const std::string& begin = operation.delete_range().begin();
      const std::string& end = operation.delete_range().end();
      std::erase_if(*model, [&](const auto& e) { return e.first >= begin && (end.empty() || e.first < end); });
    }
  }
}

Model ModelAt(const TestLog& log, Lsn lsn) {
  Model model;
  for (Lsn at = 1; at <= lsn; ++at) ApplyToModel(log.PayloadAt(at), at, &model);
  return model;
}

Model Contents(const StateSnapshot& snapshot) {
  Model model;
  const std::unique_ptr<EntryIterator> it = snapshot.Scan("", "", true);
  for (; it->Valid(); it->Next()) {
    model[std::string(it->key())] = {std::string(it->value()), it->expire_at_ms(), it->modified_lsn()};
  }
  EXPECT_TRUE(it->status().ok()) << it->status().ToString();
  return model;
}

std::string DigestOf(StateStore& store) {
  const auto snapshot = store.Snapshot();
  TOWLINE_CHECK(snapshot.ok());
  const auto digest = (*snapshot)->Digest();
  TOWLINE_CHECK(digest.ok());
  return absl::StrCat(digest->keys, ":", digest->sum.Hex());
}

namespace {

std::string RandomKey(SeededRng& rng) {
  // Short and long, and bytes at both ends of the order.
  static const char* const kPrefixes[] = {"", "a", "key:", "\xff\xff", "p", "z"};
  std::string key(kPrefixes[rng.Below(6)]);
  absl::StrAppend(&key, rng.Below(40));
  if (rng.OneIn(30)) key.push_back('\0');
  return key;
}

}  // namespace

std::string RandomChange(SeededRng& rng, Lsn lsn) {
  if (rng.OneIn(40)) return MembersPayload();
  ChangeBuilder change;
  const uint64_t operations = rng.OneIn(4) ? 1 + rng.Below(6) : 1;
  for (uint64_t i = 0; i < operations; ++i) {
    const uint64_t kind = rng.Below(100);
    if (kind < 55) {
      const uint64_t expire_at_ms = rng.OneIn(3) ? 1000 + rng.Below(50) * 10 : 0;
      change.Put(RandomKey(rng), std::string(rng.Below(40), static_cast<char>('a' + rng.Below(26))), expire_at_ms);
    } else if (kind < 80) {
      change.Delete(RandomKey(rng));
    } else if (kind < 90) {
      std::string begin = rng.OneIn(8) ? "" : RandomKey(rng);
      std::string end = rng.OneIn(8) ? "" : RandomKey(rng);
      if (rng.OneIn(2) && end < begin && !end.empty()) std::swap(begin, end);  // sometimes an empty range
      change.DeleteRange(begin, end);
    } else {
      change.Message("topic", "payload");
    }
  }
  if (rng.OneIn(3)) change.Request(absl::StrCat("client-", rng.Below(5)), lsn);
  return change.Encode();
}

TestLog RandomLog(uint64_t seed, Lsn records) {
  SeededRng rng(seed);
  TestLog log;
  log.Append(TermStartPayload());
  while (log.last() < records) log.Append(RandomChange(rng, log.last() + 1));
  return log;
}

}  // namespace towline::test
