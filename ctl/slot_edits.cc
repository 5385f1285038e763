// slot drop, copy, advance, accept-loss.

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/names.h"
#include "ctl/slot_verbs.h"
#include "ctl/status_table.h"

namespace towline::ctl {
namespace {

struct EditOptions {
  std::string name;
  std::string source;  // copy
  uint64_t lsn = 0;    // advance
  bool force = false;
  bool yes = false;
};

// What becomes of the owner of a dropped slot.
const char* OwnerAfterDrop(const v1::Slot& slot) {
  if (slot.temporary()) return "its session ends";
  if (slot.kind() == v1::SLOT_KIND_REPLICA) {
    return "the replica, if it comes back, resumes from what is left of the log, or loads a snapshot";
  }
  return "the consumer, if it comes back without an LSN of its own, begins with the next record and misses all before";
}

std::string DropQuestion(const v1::Slot& slot) {
  const Json json = ProtoToJson(slot);
  return absl::StrCat("dropping slot ", slot.name(), " (", EnumText(json["kind"]), ", ", EnumText(json["state"]),
                      ", confirmed LSN ", slot.confirmed_lsn(), ") lets go of ", FormatBytes(slot.retained_bytes()),
                      " of log; ", OwnerAfterDrop(slot));
}

int RunDrop(Context& context, const EditOptions& options) {
  const absl::Status valid = CheckSlotName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::GetSlotRequest get;
  get.set_name(options.name);
  const auto slot = (*client)->GetSlot(get);
  if (!slot.ok()) return context.Fail(slot.status());
  const absl::Status confirmed = context.Confirm(DropQuestion(slot->slot()), options.yes);
  if (!confirmed.ok()) return context.Fail(confirmed);
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

int RunCopy(Context& context, const EditOptions& options) {
  for (const std::string& name : {options.source, options.name}) {
    const absl::Status valid = CheckSlotName(name);
    if (!valid.ok()) return context.Fail(valid);
  }
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::CopySlotRequest request;
  request.set_source(options.source);
  request.set_name(options.name);
  const auto response = (*client)->CopySlot(request);
  return response.ok() ? PrintSlot(context, response->slot()) : context.Fail(response.status());
}

int RunAdvance(Context& context, const EditOptions& options) {
  const absl::Status valid = CheckSlotName(options.name);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::AdvanceSlotRequest request;
  request.set_name(options.name);
  request.set_confirmed_lsn(options.lsn);
  const auto response = (*client)->AdvanceSlot(request);
  return response.ok() ? PrintSlot(context, response->slot()) : context.Fail(response.status());
}

int RunAcceptLoss(Context& context, const EditOptions& options) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto slots = (*client)->ListSlots();
  if (!slots.ok()) return context.Fail(slots.status());
  if (slots->unknown()) {
    const absl::Status confirmed = context.Confirm(
        absl::StrCat("the slot table of ", (*client)->endpoint(), " was lost, and ", slots->slots_size(),
                     " slots are there again; log that these do not hold may be removed, whoever else needs it"),
        options.yes);
    if (!confirmed.ok()) return context.Fail(confirmed);
  }
  const auto response = (*client)->AcceptSlotLoss();
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    context.Print(ProtoToJson(*response));
    return kExitOk;
  }
  context.out() << (response->was_unknown() ? "accepted; these slots hold the log" : "no slot table was lost") << "\n";
  PrintSlotsTable(context.out(), response->slots());
  return kExitOk;
}

void AddDrop(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<EditOptions>();
  CLI::App* drop = slot.add_subcommand("drop", "Drop a slot; its log may be removed from then on");
  drop->add_option("name", options->name, "Slot name")->required();
  drop->add_flag("--yes", options->yes, "Do not ask; needed where standard input is no terminal");
  drop->add_flag("--force", options->force, "Also while a session is connected, which ends");
  drop->footer("Example:\n  towctl slot drop indexer --yes");
  OnSelected(*drop, selection, [options](Context& context) { return RunDrop(context, *options); });
}

void AddCopy(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<EditOptions>();
  CLI::App* copy = slot.add_subcommand("copy", "Make a slot of the same kind where another one stands");
  copy->add_option("source", options->source, "Slot to copy")->required();
  copy->add_option("name", options->name, "New slot, [a-z0-9][a-z0-9_-]{0,62}")->required();
  copy->footer(
      "The new slot begins behind the saved confirmed LSN of the other one, and holds the log by itself.\n"
      "Example:\n  towctl slot copy indexer indexer-2");
  OnSelected(*copy, selection, [options](Context& context) { return RunCopy(context, *options); });
}

void AddAdvance(CLI::App& slot, Selection& selection) {
  auto options = std::make_shared<EditOptions>();
  CLI::App* advance = slot.add_subcommand("advance", "Confirm records for a consumer that is not connected");
  advance->add_option("name", options->name, "Slot of a consumer")->required();
  AddNumber(*advance, "lsn", &options->lsn, "Last LSN that it does not need; never below its present one")->required();
  advance->footer("Example:\n  towctl slot advance indexer 1200");
  OnSelected(*advance, selection, [options](Context& context) { return RunAdvance(context, *options); });
}

}  // namespace

void AddSlotEdits(CLI::App& slot, Selection& selection) {
  AddDrop(slot, selection);
  AddCopy(slot, selection);
  AddAdvance(slot, selection);

  auto options = std::make_shared<EditOptions>();
  CLI::App* accept =
      slot.add_subcommand("accept-loss", "After damage to the slot table: let log that no slot holds be removed again");
  accept->add_flag("--yes", options->yes, "Do not ask; needed where standard input is no terminal");
  accept->footer("Wait until every owner that you know of has connected: each gets its slot again.");
  OnSelected(*accept, selection, [options](Context& context) { return RunAcceptLoss(context, *options); });
}

}  // namespace towline::ctl
