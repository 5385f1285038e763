// member list, member remove, member min-replicas.

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

struct MinReplicasOptions {
  uint64_t replicas = 0;
};

int RunMinReplicas(Context& context, const MinReplicasOptions& options) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  v1::SetMinReplicasRequest request;
  request.set_min_replicas(static_cast<uint32_t>(options.replicas));
  const auto response = (*client)->SetMinReplicas(request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    context.Print(ProtoToJson(*response));
    return kExitOk;
  }
  context.out() << "min_replicas " << options.replicas;
  if (response->unchanged()) {
    context.out() << ", as before\n";
  } else {
    context.out() << " by the Members record at lsn " << response->members_lsn() << "\n";
  }
  return kExitOk;
}

int RunList(Context& context) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  const auto topology = (*client)->GetTopology();
  if (!topology.ok()) return context.Fail(topology.status());
  if (context.json()) {
    context.Print(ProtoToJson(*topology)["members"]);
  } else {
    PrintMembersTable(context.out(), topology->members());
    const auto status = (*client)->GetStatus();
    if (status.ok()) context.out() << "min_replicas " << status->min_replicas() << "\n";
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
  CLI::App* member = app.add_subcommand("member", "Members of the cluster: list, remove, least commit level");
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

  auto least = std::make_shared<MinReplicasOptions>();
  CLI::App* min_replicas =
      member->add_subcommand("min-replicas", "Set the least number of replicas that a write may ask for");
  min_replicas->alias("set-min-replicas");
  min_replicas->add_option("replicas", least->replicas, "0 = none; at most the counting members besides the primary")
      ->required()
      ->check(CLI::Range(0, 1000));
  min_replicas->footer("Example:\n  towctl member min-replicas 1");
  OnSelected(*min_replicas, selection, [least](Context& context) { return RunMinReplicas(context, *least); });
}

}  // namespace towline::ctl
