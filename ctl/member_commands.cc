// member list, member remove.

#include <memory>
#include <string>

#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/status_table.h"

namespace towline::ctl {
namespace {

struct RemoveOptions {
  std::string node_id;
  bool force = false;
};

int RunList(Context& context) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto topology = (*client)->GetTopology();
  if (!topology.ok()) return context.Fail(topology.status());
  if (context.json()) {
    context.Print(ProtoToJson(*topology)["members"]);
  } else {
    PrintMembersTable(context.out(), topology->members());
  }
  return kExitOk;
}

int RunRemove(Context& context, const RemoveOptions& options) {
  const absl::Status valid = ValidateName("node id", options.node_id);
  if (!valid.ok()) return context.Fail(UsageError(GetErrorInfo(valid).message));
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::RemoveMemberRequest request;
  request.set_node_id(options.node_id);
  request.set_force(options.force);
  const auto response = (*client)->RemoveMember(request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    context.Print(ProtoToJson(*response));
    return kExitOk;
  }
  context.out() << "removed " << options.node_id << "; the members are now:\n";
  PrintMembersTable(context.out(), response->members());
  if (response->slot_exists()) {
    context.out() << "slot " << options.node_id << " still holds the log for it; if it does not come back:\n"
                  << "  towctl slot drop " << options.node_id << "\n";
  }
  return kExitOk;
}

}  // namespace

void AddMemberCommands(CLI::App& app, Selection& selection) {
  CLI::App* member = app.add_subcommand("member", "Members of the cluster: list, remove");
  member->require_subcommand(1);
  CLI::App* list = member->add_subcommand("list", "List the members as the node's log names them");
  OnSelected(*list, selection, RunList);

  auto options = std::make_shared<RemoveOptions>();
  CLI::App* remove = member->add_subcommand("remove", "Take a node out of the members, on the primary");
  remove->add_option("node", options->node_id, "Node id")->required();
  remove->add_flag("--force", options->force,
                   "Also while it is connected; it joins again at its next attach unless members.auto_join is off");
  remove->footer("Example:\n  towctl member remove r2 && towctl slot drop r2 --yes");
  OnSelected(*remove, selection, [options](Context& context) { return RunRemove(context, *options); });
}

}  // namespace towline::ctl
