// slot explain.

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "common/rng.h"
#include "ctl/app.h"
#include "ctl/ask_node.h"

namespace towline::ctl {
namespace {

struct ExplainOptions {
  std::string name;
  std::string kind;
  uint64_t lsn = 0;
  std::string chain;
  std::string cluster_id;
};

// What is asked, and whose word the position is.
struct Question {
  v1::PlanResumeRequest request;
  std::string source;
};

// A position that was given on the command line.
absl::Status FillPosition(client::Client& client, const ExplainOptions& options, v1::PullStart* start) {
  if (options.lsn == 0) return absl::OkStatus();
  const bool consumer = start->kind() == v1::SLOT_KIND_CONSUMER;
  const auto history = client.GetHistory();
  if (!history.ok()) return history.status();
  if (!consumer && options.chain.empty()) {
    return UsageError(
        "a replica's position needs --chain; towctl wal seek LSN --data-dir DIR of the replica prints it");
  }
  start->set_cluster_id(options.cluster_id.empty() ? history->cluster_id() : options.cluster_id);
  start->set_lsn(options.lsn);
  uint64_t chain = 0;
  if (!options.chain.empty()) {
    if (options.chain.size() > 16 || !absl::SimpleHexAtoi(options.chain, &chain)) {
      return UsageError(
          absl::StrCat("--chain: \"", Printable(options.chain), "\" is not a number of 1 to 16 hex digits"));
    }
    start->set_chain(chain);
  }
  if (consumer) return absl::OkStatus();
  // As a replica that holds the server's own line from the first record.
  for (const v1::HistoryEntry& entry : history->history()) {
    if (entry.start_lsn() <= options.lsn) *start->add_history() = entry;
  }
  start->set_first_retained_lsn(1);
  return absl::OkStatus();
}

// The node's own word: what it would send now.
bool AskTheNode(Context& context, client::Client& client, const ExplainOptions& options, Question* question) {
  const auto topology = client.GetTopology();
  if (!topology.ok()) return false;
  for (const v1::Member& member : topology->members()) {
    if (member.node_id() != options.name || member.address().empty()) continue;
    absl::StatusOr<v1::PullStart> start = AskNodeForStart(context, member.address());
    if (!start.ok() || start->slot() != options.name) return false;
    question->request.mutable_start()->Swap(&*start);
    question->source = absl::StrCat(options.name, " itself, at ", member.address());
    return true;
  }
  return false;
}

// An owner that holds nothing.
absl::Status FillStart(client::Client& client, const ExplainOptions& options, v1::SlotKind kind, v1::PullStart* start) {
  const bool consumer = kind == v1::SLOT_KIND_CONSUMER;
  start->set_protocol_version(1);
  start->set_slot(options.name);
  start->set_kind(kind);
  start->set_format(consumer ? v1::RECORD_FORMAT_RECORDS : v1::RECORD_FORMAT_FRAMES);
  start->set_process_instance(NewId(*SystemRng()));
  if (!consumer) start->set_incarnation(NewId(*SystemRng()));
  start->set_credit_bytes(8u << 20);
  return FillPosition(client, options, start);
}

absl::Status Ask(Context& context, client::Client& client, const ExplainOptions& options, bool has_lsn,
                 Question* question) {
  v1::GetSlotRequest get;
  get.set_name(options.name);
  const auto slot = client.GetSlot(get);
  if (!slot.ok() && !absl::IsNotFound(slot.status())) return slot.status();
  v1::SlotKind kind = options.kind == "consumer" ? v1::SLOT_KIND_CONSUMER : v1::SLOT_KIND_REPLICA;
  if (options.kind.empty() && slot.ok()) kind = slot->slot().kind();
  if (!has_lsn && kind == v1::SLOT_KIND_REPLICA && AskTheNode(context, client, options, question)) {
    return absl::OkStatus();
  }
  if (!has_lsn && slot.ok() && slot->slot().kind() == kind) {
    question->request.mutable_start()->set_slot(options.name);
    question->request.set_as_slot_owner(true);
    question->source = "the slot; the owner itself was not asked";
    return absl::OkStatus();
  }
  question->source = has_lsn ? "the command line" : "nobody: a new owner, which holds nothing";
  return FillStart(client, options, kind, question->request.mutable_start());
}

std::string HeadroomText(const v1::Slot& slot) {
  std::string text = absl::StrCat(FormatBytes(slot.retained_bytes()), " held back, ",
                                  FormatBytes(slot.headroom_bytes()), " until the slot is lost");
  if (slot.has_headroom_seconds()) absl::StrAppend(&text, " (", FormatSeconds(slot.headroom_seconds()), ")");
  return text;
}

void Print(Context& context, const Json& json, const Question& question, const v1::PlanResumeResponse& response) {
  const v1::PullStarted& plan = response.plan();
  const std::string decision = EnumText(json["plan"].is_object() ? json["plan"]["decision"] : Json("-"));
  std::ostream& out = context.out();
  out << "decision       " << decision << " (" << plan.reason() << ")\n"
      << "because        " << plan.message() << "\n";
  if (!plan.next_action().empty()) out << "next           " << plan.next_action() << "\n";
  out << "position from  " << question.source << "\n"
      << "from lsn       " << plan.from_lsn() << "\n"
      << "first retained " << plan.first_retained_lsn() << "\n"
      << "durable        " << plan.durable_lsn() << "\n"
      << "common         " << plan.common_lsn() << "\n"
      << "term           " << plan.term() << "\n"
      << "to ship        " << FormatBytes(response.bytes_to_ship()) << "\n";
  if (!response.has_slot()) return;
  const Json slot = ProtoToJson(response.slot());
  out << "slot           " << EnumText(slot["state"]) << ", " << EnumText(slot["health"]);
  if (response.slot().has_invalidation()) out << " (" << response.slot().invalidation().cause() << ")";
  out << "\n";
  if (!response.slot().has_invalidation()) out << "retention      " << HeadroomText(response.slot()) << "\n";
}

int RunExplain(Context& context, const ExplainOptions& options, bool has_lsn) {
  const absl::Status valid = ValidateName("slot name", options.name);
  if (!valid.ok()) return context.Fail(UsageError(GetErrorInfo(valid).message));
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  Question question;
  const absl::Status asked = Ask(context, **client, options, has_lsn, &question);
  if (!asked.ok()) return context.Fail(asked);
  const auto response = (*client)->PlanResume(question.request);
  if (!response.ok()) return context.Fail(response.status());
  Json json = ProtoToJson(*response);
  if (context.json()) {
    json["position_from"] = question.source;
    context.Print(json);
  } else {
    Print(context, json, question, *response);
  }
  return kExitOk;
}

}  // namespace

void AddSlotExplainCommand(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<ExplainOptions>();
  CLI::App* explain = slot.add_subcommand("explain", "Say how the owner of a slot would resume now, and why");
  explain->add_option("node", options->name, "Slot name or node id")->required();
  explain->add_option("--kind", options->kind, "replica or consumer (default: as the slot, else replica)")
      ->check(CLI::IsMember({"replica", "consumer"}));
  CLI::Option* lsn = AddNumber(*explain, "--lsn", &options->lsn,
                               "Last record that the owner holds (default: what it says itself, if it is a member that "
                               "answers; else what its slot knows; else nothing)");
  explain->add_option("--chain", options->chain, "Chain after that record, hex")->needs(lsn);
  explain->add_option("--cluster-id", options->cluster_id, "The owner's cluster (default: the server's)")->needs(lsn);
  explain->footer(
      "Examples:\n  towctl slot explain r1\n  towctl slot explain r1 --lsn 1200 --chain 00c0ffee00c0ffee\n"
      "  towctl slot explain indexer --kind consumer --lsn 1200");
  OnSelected(*explain, selection,
             [options, lsn](Context& context) { return RunExplain(context, *options, lsn->count() > 0); });
}

}  // namespace towline::ctl
