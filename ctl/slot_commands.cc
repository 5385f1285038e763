// slot list, get, create, drop, explain.

#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "common/rng.h"
#include "ctl/app.h"
#include "ctl/status_table.h"

namespace towline::ctl {
namespace {

struct SlotOptions {
  std::string name;
  std::string kind;
  uint64_t lsn = 0;
  std::string chain;
  std::string cluster_id;
  bool force = false;
};

v1::SlotKind KindOf(const std::string& name) {
  return name == "consumer" ? v1::SLOT_KIND_CONSUMER : v1::SLOT_KIND_REPLICA;
}

absl::Status CheckName(const std::string& name) {
  const absl::Status status = ValidateName("slot name", name);
  return status.ok() ? status : UsageError(GetErrorInfo(status).message);
}

int PrintSlot(Context& context, const v1::Slot& slot) {
  if (context.json()) {
    context.Print(ProtoToJson(slot));
  } else {
    google::protobuf::RepeatedPtrField<v1::Slot> slots;
    *slots.Add() = slot;
    PrintSlotsTable(context.out(), slots);
  }
  return kExitOk;
}

int RunList(Context& context) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto response = (*client)->ListSlots();
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    context.Print(ProtoToJson(*response));
  } else {
    PrintSlotsTable(context.out(), response->slots());
  }
  return kExitOk;
}

int RunGetSlot(Context& context, const SlotOptions& options) {
  const absl::Status valid = CheckName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::GetSlotRequest request;
  request.set_name(options.name);
  const auto response = (*client)->GetSlot(request);
  return response.ok() ? PrintSlot(context, response->slot()) : context.Fail(response.status());
}

int RunCreate(Context& context, const SlotOptions& options, bool has_lsn) {
  const absl::Status valid = CheckName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::CreateSlotRequest request;
  request.set_name(options.name);
  request.set_kind(KindOf(options.kind));
  if (has_lsn) request.set_confirmed_lsn(options.lsn);
  const auto response = (*client)->CreateSlot(request);
  return response.ok() ? PrintSlot(context, response->slot()) : context.Fail(response.status());
}

int RunDrop(Context& context, const SlotOptions& options) {
  const absl::Status valid = CheckName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::DropSlotRequest request;
  request.set_name(options.name);
  request.set_force(options.force);
  const auto response = (*client)->DropSlot(request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) return PrintSlot(context, response->slot());
  context.out() << "dropped slot " << response->slot().name() << ", confirmed lsn " << response->slot().confirmed_lsn()
                << "\n";
  return kExitOk;
}

// The position that is asked about: the one given, or that of an owner that holds nothing.
absl::Status FillPosition(client::Client& client, const SlotOptions& options, bool has_lsn, v1::PullStart* start) {
  const bool consumer = start->kind() == v1::SLOT_KIND_CONSUMER;
  if (!has_lsn) {
    v1::GetSlotRequest request;
    request.set_name(options.name);
    start->set_from_slot(consumer && client.GetSlot(request).ok());
    return absl::OkStatus();
  }
  if (options.lsn == 0) return absl::OkStatus();
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

absl::Status BuildStart(client::Client& client, const SlotOptions& options, bool has_lsn, v1::PullStart* start) {
  start->set_protocol_version(1);
  start->set_slot(options.name);
  start->set_kind(KindOf(options.kind));
  if (options.kind.empty()) {
    v1::GetSlotRequest request;
    request.set_name(options.name);
    const auto slot = client.GetSlot(request);
    if (slot.ok()) {
      start->set_kind(slot->slot().kind());
    } else if (!absl::IsNotFound(slot.status())) {
      return slot.status();
    }
  }
  const bool consumer = start->kind() == v1::SLOT_KIND_CONSUMER;
  start->set_format(consumer ? v1::RECORD_FORMAT_RECORDS : v1::RECORD_FORMAT_FRAMES);
  start->set_process_instance(NewId(*SystemRng()));
  if (!consumer) start->set_incarnation(NewId(*SystemRng()));
  start->set_credit_bytes(8u << 20);
  return FillPosition(client, options, has_lsn, start);
}

int RunExplain(Context& context, const SlotOptions& options, bool has_lsn) {
  const absl::Status valid = CheckName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::PlanResumeRequest request;
  const absl::Status built = BuildStart(**client, options, has_lsn, request.mutable_start());
  if (!built.ok()) return context.Fail(built);
  const auto response = (*client)->PlanResume(request);
  if (!response.ok()) return context.Fail(response.status());
  const Json json = ProtoToJson(*response);
  if (context.json()) {
    context.Print(json);
    return kExitOk;
  }
  const v1::PullStarted& plan = response->plan();
  const std::string decision = EnumText(json["plan"].is_object() ? json["plan"]["decision"] : Json("-"));
  context.out() << "decision       " << decision << " (" << plan.reason() << ")\n"
                << "because        " << plan.message() << "\n";
  if (!plan.next_action().empty()) context.out() << "next           " << plan.next_action() << "\n";
  context.out() << "from lsn       " << plan.from_lsn() << "\n"
                << "first retained " << plan.first_retained_lsn() << "\n"
                << "durable        " << plan.durable_lsn() << "\n"
                << "common         " << plan.common_lsn() << "\n"
                << "term           " << plan.term() << "\n"
                << "to ship        " << FormatBytes(response->bytes_to_ship()) << "\n";
  return kExitOk;
}

void AddCreate(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<SlotOptions>();
  CLI::App* create = slot.add_subcommand("create", "Create a slot; it is saved before the answer");
  create->add_option("name", options->name, "[a-z0-9][a-z0-9_-]{0,62}; a replica's slot has its node id")->required();
  create->add_option("--kind", options->kind, "replica or consumer")
      ->required()
      ->check(CLI::IsMember({"replica", "consumer"}));
  CLI::Option* lsn = AddNumber(*create, "--confirmed-lsn", &options->lsn,
                               "The owner will read from the record behind this one (default: the newest)");
  create->footer("Example:\n  towctl slot create indexer --kind consumer --confirmed-lsn 0");
  OnSelected(*create, selection,
             [options, lsn](Context& context) { return RunCreate(context, *options, lsn->count() > 0); });
}

void AddExplain(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<SlotOptions>();
  CLI::App* explain = slot.add_subcommand("explain", "Say how the owner of a slot would resume now, and why");
  explain->add_option("node", options->name, "Slot name or node id")->required();
  explain->add_option("--kind", options->kind, "replica or consumer (default: as the slot, else replica)")
      ->check(CLI::IsMember({"replica", "consumer"}));
  CLI::Option* lsn =
      AddNumber(*explain, "--lsn", &options->lsn, "Last record that the owner holds (default: it is new)");
  explain->add_option("--chain", options->chain, "Chain after that record, hex")->needs(lsn);
  explain->add_option("--cluster-id", options->cluster_id, "The owner's cluster (default: the server's)")->needs(lsn);
  explain->footer(
      "Examples:\n  towctl slot explain r1\n  towctl slot explain r1 --lsn 1200 --chain 00c0ffee00c0ffee\n"
      "  towctl slot explain indexer --kind consumer --lsn 1200");
  OnSelected(*explain, selection,
             [options, lsn](Context& context) { return RunExplain(context, *options, lsn->count() > 0); });
}

}  // namespace

void AddSlotCommands(CLI::App& app, Selection& selection) {
  CLI::App* slot = app.add_subcommand("slot", "Durable claims on the log: list, get, create, drop, explain, forecast");
  slot->require_subcommand(1);
  CLI::App* list = slot->add_subcommand("list", "List all slots");
  OnSelected(*list, selection, RunList);

  auto get_options = std::make_shared<SlotOptions>();
  CLI::App* get = slot->add_subcommand("get", "Show one slot");
  get->add_option("name", get_options->name, "Slot name")->required();
  OnSelected(*get, selection, [get_options](Context& context) { return RunGetSlot(context, *get_options); });

  AddCreate(*slot, selection);

  auto drop_options = std::make_shared<SlotOptions>();
  CLI::App* drop = slot->add_subcommand("drop", "Drop a slot; its log may be removed from then on");
  drop->add_option("name", drop_options->name, "Slot name")->required();
  drop->add_flag("--force", drop_options->force, "Also while a session is connected, which ends");
  OnSelected(*drop, selection, [drop_options](Context& context) { return RunDrop(context, *drop_options); });

  AddExplain(*slot, selection);
  AddForecastCommand(*slot, selection);
}

}  // namespace towline::ctl
