// put, get, del, message, scan.

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "client/bookmark_proto.h"
#include "client/scan_pages.h"
#include "common/error.h"
#include "common/names.h"
#include "common/types.h"
#include "ctl/app.h"
#include "ctl/durability_flags.h"
#include "ctl/ranges.h"
#include "towline/bookmark.h"

namespace towline::ctl {
namespace {

struct WriteOptions {
  std::string key;
  std::string value;
  std::string begin;
  std::string end;
  bool base64 = false;
  bool prefix_range = false;
  bool all = false;
  int64_t ttl_us = 0;
  bool if_absent = false;
  bool if_exists = false;
  uint64_t if_modified_lsn = 0;
  std::string request_id;
  DurabilityFlags durability;
  bool token = false;
};

struct ReadOptions {
  std::string key;
  bool base64 = false;
  std::string prefix;
  std::string begin;
  std::string end;
  uint64_t limit = 0;
  bool pinned = false;
  std::string at;
  int64_t wait_us = 1'000'000;
};

absl::Status CheckKey(absl::string_view what, absl::string_view key) {
  if (key.empty()) return UsageError(absl::StrCat("the ", what, " is empty; it has 1 to ", kKeySizeMax, " bytes"));
  if (key.size() > kKeySizeMax) {
    return UsageError(absl::StrCat("the ", what, " has ", key.size(), " bytes; at most ", kKeySizeMax, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status DecodeBase64(absl::string_view what, std::string* text) {
  std::string bytes;
  if (!absl::Base64Unescape(*text, &bytes)) return UsageError(absl::StrCat("the ", what, " is not base64"));
  *text = std::move(bytes);
  return absl::OkStatus();
}

// CLIENT:SEQUENCE
absl::Status ParseRequestId(const std::string& text, v1::RequestId* id) {
  const size_t colon = text.rfind(':');
  uint64_t sequence = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &sequence) || sequence == 0) {
    return UsageError(
        absl::StrCat("\"", Printable(text), "\" is not a request id: give CLIENT:SEQUENCE, such as job-7:1"));
  }
  const absl::Status name = ValidateName("client id", text.substr(0, colon));
  if (!name.ok()) return UsageError(GetErrorInfo(name).message);
  id->set_client_id(text.substr(0, colon));
  id->set_sequence(sequence);
  return absl::OkStatus();
}

absl::Status AddConditions(const WriteOptions& options, v1::WriteRequest* request) {
  if (options.if_absent) {
    v1::Condition* condition = request->add_conditions();
    condition->set_key(options.key);
    condition->set_exists(false);
  }
  if (options.if_exists) {
    v1::Condition* condition = request->add_conditions();
    condition->set_key(options.key);
    condition->set_exists(true);
  }
  if (options.if_modified_lsn > 0) {
    v1::Condition* condition = request->add_conditions();
    condition->set_key(options.key);
    condition->set_modified_lsn(options.if_modified_lsn);
  }
  TOWLINE_ASSIGN_OR_RETURN(const auto durability, DurabilityOf(options.durability));
  if (durability.has_value()) *request->mutable_durability() = *durability;
  if (options.request_id.empty()) return absl::OkStatus();
  return ParseRequestId(options.request_id, request->mutable_request_id());
}

int SendWrite(Context& context, const WriteOptions& options, const v1::WriteRequest& request) {
  auto cluster = context.ConnectCluster();
  if (!cluster.ok()) return context.Fail(cluster.status());
  const auto written = (*cluster)->Write(request, (*cluster)->Route({}));
  if (!written.ok()) return context.Fail(written.status());
  const v1::WriteResponse& response = written->response;
  const std::string token = ToToken(FromProto(response.position()));
  if (context.json()) {
    Json json = ProtoToJson(response);
    json["token"] = token;
    context.Print(json);
  } else {
    context.out() << (response.duplicate() ? "duplicate of" : "ok") << " lsn " << response.position().lsn()
                  << " term " << response.position().term();
    const v1::AchievedLevel& achieved = response.achieved();
    if (request.has_durability() || achieved.replicas_flushed() > 0) {
      context.out() << ", " << achieved.replicas_flushed() << " replicas flushed, " << achieved.replicas_applied()
                    << " applied" << (achieved.reached() ? "" : ": NOT the level that was asked for");
    }
    context.out() << (options.token ? " " + token : "") << "\n";
  }
  return kExitOk;
}

// Where and how to read: --at, --wait.
absl::StatusOr<client::CallRoute> ReadRoute(const client::ClusterClient& cluster, const ReadOptions& options) {
  client::CallRoute route = cluster.Route({});
  if (options.at.empty()) return route;
  const auto bookmark = ParseToken(options.at);
  if (!bookmark.ok()) return UsageError(absl::StrCat("--at: ", GetErrorInfo(bookmark.status()).message));
  route.at = ToProto(*bookmark);
  route.wait_us = options.wait_us;
  route.timeout_us += options.wait_us;
  return route;
}

absl::Status BuildPut(WriteOptions& options, v1::WriteRequest* request) {
  if (options.base64) {
    TOWLINE_RETURN_IF_ERROR(DecodeBase64("key", &options.key));
    TOWLINE_RETURN_IF_ERROR(DecodeBase64("value", &options.value));
  }
  TOWLINE_RETURN_IF_ERROR(CheckKey("key", options.key));
  if (options.ttl_us > 0 && options.ttl_us < 1000) return UsageError("--ttl: the shortest time to live is 1ms");
  v1::Put* put = request->add_operations()->mutable_put();
  put->set_key(options.key);
  put->set_value(options.value);
  put->set_ttl_ms(static_cast<uint64_t>(options.ttl_us / 1000));
  return AddConditions(options, request);
}

absl::Status BuildDelete(WriteOptions& options, bool has_bounds, v1::WriteRequest* request) {
  const bool has_key = !options.key.empty();
  if (has_key + has_bounds + options.all != 1) {
    return UsageError("give exactly one of: a key, --begin and/or --end, --all");
  }
  if (options.base64) {
    TOWLINE_RETURN_IF_ERROR(DecodeBase64("key", &options.key));
    TOWLINE_RETURN_IF_ERROR(DecodeBase64("--begin", &options.begin));
    TOWLINE_RETURN_IF_ERROR(DecodeBase64("--end", &options.end));
  }
  if (has_key) TOWLINE_RETURN_IF_ERROR(CheckKey("key", options.key));
  if (!has_key && (options.if_exists || options.if_modified_lsn > 0)) {
    return UsageError("conditions need a key");
  }
  if (options.begin.size() > kKeySizeMax || options.end.size() > kKeySizeMax) {
    return UsageError(absl::StrCat("a bound has more than ", kKeySizeMax, " bytes"));
  }
  if (has_key && !options.prefix_range) {
    request->add_operations()->mutable_delete_()->set_key(options.key);
    return AddConditions(options, request);
  }
  v1::DeleteRange* range = request->add_operations()->mutable_delete_range();
  if (has_key) {
    range->set_begin(options.key);
    range->set_end(PrefixEnd(options.key));
  } else if (!options.all) {
    range->set_begin(options.begin);
    range->set_end(options.end);
    if (options.begin.empty() && options.end.empty()) {
      return UsageError("both bounds are empty, which means every key; give --all for that");
    }
    if (!options.end.empty() && options.begin >= options.end) {
      return UsageError("--begin is not below --end, so that no key is in the range");
    }
  }
  return AddConditions(options, request);
}

int RunGet(Context& context, ReadOptions& options) {
  if (options.base64) {
    const absl::Status decoded = DecodeBase64("key", &options.key);
    if (!decoded.ok()) return context.Fail(decoded);
  }
  const absl::Status valid = CheckKey("key", options.key);
  if (!valid.ok()) return context.Fail(valid);
  auto cluster = context.ConnectCluster();
  if (!cluster.ok()) return context.Fail(cluster.status());
  const auto route = ReadRoute(**cluster, options);
  if (!route.ok()) return context.Fail(route.status());
  v1::GetRequest request;
  request.set_key(options.key);
  const auto read = (*cluster)->Get(request, *route);
  if (!read.ok()) return context.Fail(read.status());
  const v1::GetResponse& response = read->response;
  if (!response.has_entry()) {
    return context.Fail(
        MakeError(absl::StatusCode::kNotFound, "key_not_found",
                  absl::StrCat("no key \"", Printable(options.key), "\" at lsn ", response.position().lsn())));
  }
  if (context.json()) {
    Json json = ProtoToJson(response.entry());
    json["token"] = ToToken(FromProto(response.position()));
    context.Print(json);
  } else {
    context.out() << response.entry().value();
    if (context.environment().out_is_terminal) context.out() << "\n";
  }
  return kExitOk;
}

void PrintEntry(Context& context, const v1::Entry& entry) {
  if (context.json()) {
    context.out() << JsonText(ProtoToJson(entry)) << "\n";
  } else {
    context.out() << Printable(entry.key(), entry.key().size()) << "\t"
                  << Printable(entry.value(), entry.value().size()) << "\n";
  }
}

int RunScan(Context& context, const ReadOptions& options) {
  constexpr uint64_t kPageMax = 10000;
  auto cluster = context.ConnectCluster();
  if (!cluster.ok()) return context.Fail(cluster.status());
  const auto route = ReadRoute(**cluster, options);
  if (!route.ok()) return context.Fail(route.status());
  v1::ScanRequest range;
  range.set_prefix(options.prefix);
  range.set_begin(options.begin);
  range.set_end(options.end);
  range.set_pinned(options.pinned);
  client::ScanPages pages(**cluster, range, *route);
  uint64_t left = options.limit == 0 ? UINT64_MAX : options.limit;
  v1::ScanResponse page;
  while (left > 0) {
    const auto more = pages.Next(&page, static_cast<uint32_t>(std::min(left, kPageMax)));
    if (!more.ok()) return context.Fail(more.status());
    if (!*more) break;
    for (const v1::Entry& entry : page.entries()) PrintEntry(context, entry);
    left -= std::min<uint64_t>(left, page.entries_size());
    const absl::Status status =
        context.interrupt().triggered() ? absl::CancelledError("interrupted") : context.FlushOut();
    if (!status.ok()) return context.Fail(status);
  }
  return kExitOk;
}

void AddBookmarkOptions(CLI::App& verb, ReadOptions& options) {
  verb.add_option("--at", options.at, "The state must cover this position, a token that a write or a read printed");
  AddDuration(verb, "--wait", &options.wait_us, "How long a node may take to get there, up to 30s (default 1s)");
}

void AddPut(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<WriteOptions>();
  CLI::App* put = app.add_subcommand("put", "Set a key");
  put->add_option("key", options->key, "The key, 1 to 65536 bytes")->required();
  put->add_option("value", options->value, "The value")->required();
  AddDuration(*put, "--ttl", &options->ttl_us, "The key expires after this time, such as 10s");
  CLI::Option* absent = put->add_flag("--if-absent", options->if_absent, "Only if the key does not exist");
  CLI::Option* exists = put->add_flag("--if-exists", options->if_exists, "Only if the key exists");
  CLI::Option* modified = AddNumber(*put, "--if-modified-lsn", &options->if_modified_lsn,
                                    "Only if the record with this LSN wrote the key last", 1);
  absent->excludes(exists)->excludes(modified);
  put->add_option("--request-id", options->request_id,
                  "CLIENT:SEQUENCE; a retry with the same id is not applied again");
  put->add_flag("--base64", options->base64, "Key and value are given in base64");
  AddDurabilityFlags(*put, &options->durability);
  put->add_flag("--token", options->token, "Print the record's position as a token, too");
  put->footer(
      "Examples:\n  towctl put greeting hello\n  towctl put session/7 alice --ttl 30m\n"
      "  towctl put lock me --if-absent\n  towctl put -- -key-with-a-dash value\n"
      "  towctl put order/7 paid --replicas 1 --commit-timeout 2s\n"
      "A condition that does not hold is exit code 4.");
  OnSelected(*put, selection, [options](Context& context) {
    v1::WriteRequest request;
    const absl::Status built = BuildPut(*options, &request);
    return built.ok() ? SendWrite(context, *options, request) : context.Fail(built);
  });
}

void AddDelete(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<WriteOptions>();
  CLI::App* del = app.add_subcommand("del", "Remove a key or a range of keys");
  CLI::Option* key = del->add_option("key", options->key, "The key; removing an absent key is no error");
  del->add_flag("--prefix-range", options->prefix_range, "Remove every key that starts with KEY")->needs(key);
  CLI::Option* begin = del->add_option("--begin", options->begin, "Remove from this key on");
  CLI::Option* end = del->add_option("--end", options->end, "Remove up to this key, which stays");
  del->add_flag("--all", options->all, "Remove every key");
  del->add_flag("--if-exists", options->if_exists, "Only if the key exists");
  AddNumber(*del, "--if-modified-lsn", &options->if_modified_lsn, "Only if the record with this LSN wrote the key last",
            1);
  del->add_option("--request-id", options->request_id,
                  "CLIENT:SEQUENCE; a retry with the same id is not applied again");
  del->add_flag("--base64", options->base64, "Key and bounds are given in base64");
  AddDurabilityFlags(*del, &options->durability);
  del->add_flag("--token", options->token, "Print the record's position as a token, too");
  del->footer("Examples:\n  towctl del greeting\n  towctl del session/ --prefix-range\n  towctl del --begin a --end b");
  OnSelected(*del, selection, [options, begin, end](Context& context) {
    v1::WriteRequest request;
    const bool has_bounds = begin->count() + end->count() > 0;
    const absl::Status built = BuildDelete(*options, has_bounds, &request);
    return built.ok() ? SendWrite(context, *options, request) : context.Fail(built);
  });
}

void AddMessage(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<WriteOptions>();
  CLI::App* message = app.add_subcommand("message", "Log an application message: consumers see it, the state does not");
  message->add_option("topic", options->key, "The topic, 1 to 65536 bytes")->required();
  message->add_option("payload", options->value, "The payload")->required();
  message->add_option("--request-id", options->request_id,
                      "CLIENT:SEQUENCE; a retry with the same id is not applied again");
  AddDurabilityFlags(*message, &options->durability);
  message->footer("Example:\n  towctl message deploys 'release 7'");
  OnSelected(*message, selection, [options](Context& context) {
    v1::WriteRequest request;
    absl::Status status = CheckKey("topic", options->key);
    v1::Message* operation = request.add_operations()->mutable_message();
    operation->set_topic(options->key);
    operation->set_payload(options->value);
    if (status.ok()) status = AddConditions(*options, &request);
    return status.ok() ? SendWrite(context, *options, request) : context.Fail(status);
  });
}

void AddReads(CLI::App& app, Selection& selection) {
  auto get_options = std::make_shared<ReadOptions>();
  CLI::App* get = app.add_subcommand("get", "Print the value of a key; exit code 1 if there is none");
  get->add_option("key", get_options->key, "The key")->required();
  get->add_flag("--base64", get_options->base64, "The key is given in base64");
  AddBookmarkOptions(*get, *get_options);
  get->footer("Examples:\n  towctl get greeting\n  towctl get greeting -o json");
  OnSelected(*get, selection, [get_options](Context& context) { return RunGet(context, *get_options); });

  auto scan_options = std::make_shared<ReadOptions>();
  CLI::App* scan = app.add_subcommand("scan", "Print keys and values in key order");
  scan->add_option("--prefix", scan_options->prefix, "Only keys that start with this");
  scan->add_option("--begin", scan_options->begin, "From this key on");
  scan->add_option("--end", scan_options->end, "Up to this key, which is left out");
  AddNumber(*scan, "--limit", &scan_options->limit, "At most this many keys (default all)", 1);
  scan->add_flag("--pinned", scan_options->pinned, "All pages from one position of the log");
  AddBookmarkOptions(*scan, *scan_options);
  scan->footer(
      "Examples:\n  towctl scan --prefix user/ --limit 10\n  towctl scan -o json\n"
      "Table: KEY<TAB>VALUE, unprintable bytes as \\xNN. JSON: one object per line.");
  OnSelected(*scan, selection, [scan_options](Context& context) { return RunScan(context, *scan_options); });
}

}  // namespace

void AddKvCommands(CLI::App& app, Selection& selection) {
  AddPut(app, selection);
  AddReads(app, selection);
  AddDelete(app, selection);
  AddMessage(app, selection);
}

}  // namespace towline::ctl
