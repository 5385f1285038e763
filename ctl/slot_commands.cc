// slot list, get, create.

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/names.h"
#include "ctl/slot_verbs.h"
#include "ctl/status_table.h"

namespace towline::ctl {

absl::Status CheckSlotName(const std::string& name) {
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

namespace {

struct SlotOptions {
  std::string name;
  std::string kind;
  uint64_t lsn = 0;
};

v1::SlotKind KindOf(const std::string& name) {
  return name == "consumer" ? v1::SLOT_KIND_CONSUMER : v1::SLOT_KIND_REPLICA;
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
    if (response->unknown()) {
      context.out() << "UNKNOWN: the slot table was lost, so slots may be missing; no log is removed until\n"
                    << "towctl slot accept-loss\n";
    }
  }
  return kExitOk;
}

int RunGetSlot(Context& context, const SlotOptions& options) {
  const absl::Status valid = CheckSlotName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::GetSlotRequest request;
  request.set_name(options.name);
  const auto response = (*client)->GetSlot(request);
  return response.ok() ? PrintSlot(context, response->slot()) : context.Fail(response.status());
}

int RunCreate(Context& context, const SlotOptions& options, bool has_lsn) {
  const absl::Status valid = CheckSlotName(options.name);
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

void AddCreate(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<SlotOptions>();
  CLI::App* create = slot.add_subcommand("create", "Create a slot; it is saved before the answer");
  create->add_option("name", options->name, "[a-z0-9][a-z0-9_-]{0,62}; a replica's slot has its node id")->required();
  create->add_option("--kind", options->kind, "replica or consumer")
      ->required()
      ->check(CLI::IsMember({"replica", "consumer"}));
  CLI::Option* lsn = AddNumber(*create, "--confirmed-lsn", &options->lsn,
                               "The owner will read from the record behind this one (default: the newest applied)");
  create->footer("Example:\n  towctl slot create indexer --kind consumer --confirmed-lsn 0");
  OnSelected(*create, selection,
             [options, lsn](Context& context) { return RunCreate(context, *options, lsn->count() > 0); });
}

}  // namespace

void AddSlotCommands(CLI::App& app, Selection& selection) {
  CLI::App* slot = app.add_subcommand(
      "slot", "Durable claims on the log: list, get, create, drop, copy, advance, accept-loss, explain, forecast");
  slot->require_subcommand(1);
  CLI::App* list = slot->add_subcommand("list", "List all slots");
  OnSelected(*list, selection, RunList);

  auto get_options = std::make_shared<SlotOptions>();
  CLI::App* get = slot->add_subcommand("get", "Show one slot");
  get->add_option("name", get_options->name, "Slot name")->required();
  OnSelected(*get, selection, [get_options](Context& context) { return RunGetSlot(context, *get_options); });

  AddCreate(*slot, selection);

  AddSlotEdits(*slot, selection);
  AddSlotExplainCommand(*slot, selection);
  AddForecastCommand(*slot, selection);
}

}  // namespace towline::ctl
