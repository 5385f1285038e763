// promote, switchover: another node becomes the primary.

#include <algorithm>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "client/channel.h"
#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"

namespace towline::ctl {
namespace {

struct PromoteOptions {
  std::string node;
  bool force = false;
  bool dry_run = false;
  bool yes = false;
  int64_t timeout_us = 0;  // 0 = the server's default
};

struct SwitchoverOptions {
  std::string to;
  int64_t timeout_us = 0;
};

// The node with this id, as the node at the endpoint knows it, or at this HOST:PORT.
absl::StatusOr<std::unique_ptr<client::Client>> ConnectTo(Context& context, const std::string& node) {
  const int64_t timeout = context.options().timeout_us;
  if (node.find(':') != std::string::npos) return client::NewClient({node, timeout, false});
  if (const absl::Status valid = ValidateName("node", node); !valid.ok()) {
    return UsageError(GetErrorInfo(valid).message);
  }
  TOWLINE_ASSIGN_OR_RETURN(const auto asked, context.Connect());
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetTopologyResponse topology, asked->GetTopology());
  for (const v1::Member& member : topology.members()) {
    if (member.node_id() == node && !member.address().empty()) {
      return client::NewClient({member.address(), timeout, false});
    }
  }
  return MakeError(absl::StatusCode::kNotFound, "member_not_found",
                   absl::StrCat("the node at ", asked->endpoint(), " knows no member ", node, " with an address"),
                   "give its HOST:PORT, or list the members with: towctl member list");
}

std::string Millis(uint64_t micros) { return absl::StrFormat("%.1f ms", static_cast<double>(micros) / 1000); }

std::string QuorumText(const v1::Quorum& quorum) {
  return absl::StrCat(quorum.present(), " of ", quorum.total(), ", needed ", quorum.needed());
}

void PrintReport(std::ostream& out, const v1::PromotionReport& report) {
  out << "  granted by     " << absl::StrJoin(report.granted(), ", ") << "\n"
      << "  members        " << QuorumText(report.members()) << "\n"
      << "  replicas       " << QuorumText(report.counting()) << "\n";
  for (const std::string& text : report.absent()) out << "  absent         " << text << "\n";
  if (!report.caught_up_from().empty()) {
    out << "  caught up      " << report.caught_up_records() << " records from " << report.caught_up_from() << "\n";
  }
  for (const std::string& text : report.unservable_slots()) out << "  not servable   " << text << "\n";
  for (const std::string& text : report.may_be_lost()) out << "  may be lost    " << text << "\n";
  if (report.term_id() != 0) {
    const v1::PromotionTimes& times = report.times();
    out << "  took           poll " << Millis(times.poll_us()) << ", fence " << Millis(times.fence_us())
        << ", catch up " << Millis(times.catch_up_us()) << ", open " << Millis(times.open_us()) << "\n";
  }
}

absl::StatusOr<v1::PromotionReport> Ask(client::Client& client, const PromoteOptions& options, bool dry_run) {
  v1::PromoteRequest request;
  request.set_force(options.force);
  request.set_dry_run(dry_run);
  request.set_timeout_ms(static_cast<uint32_t>(options.timeout_us / 1000));
  TOWLINE_ASSIGN_OR_RETURN(v1::PromoteResponse response, client.Promote(request));
  return std::move(*response.mutable_report());
}

int RunPromote(Context& context, const PromoteOptions& options) {
  const auto client = ConnectTo(context, options.node);
  if (!client.ok()) return context.Fail(client.status());
  if (options.force && !options.dry_run) {
    const auto plan = Ask(**client, options, /*dry_run=*/true);
    if (!plan.ok()) return context.Fail(plan.status());
    context.err() << "promotion of " << plan->node_id() << " by force, term " << plan->term() << " from lsn "
                  << plan->start_lsn() << ":\n";
    PrintReport(context.err(), *plan);
    const absl::Status confirmed =
        context.Confirm(absl::StrCat("promote ", plan->node_id(), " although this may be lost?"), options.yes);
    if (!confirmed.ok()) return context.Fail(confirmed);
  }
  const auto report = Ask(**client, options, options.dry_run);
  if (!report.ok()) return context.Fail(report.status());
  if (context.json()) {
    context.Print(ProtoToJson(*report));
    return kExitOk;
  }
  context.out() << report->node_id() << (options.dry_run ? " would become" : " is") << " the primary of term "
                << report->term() << " from lsn " << report->start_lsn() << "\n";
  PrintReport(context.out(), *report);
  return kExitOk;
}

int RunSwitchover(Context& context, const SwitchoverOptions& options) {
  const auto client = ConnectTo(context, options.to);
  if (!client.ok()) return context.Fail(client.status());
  v1::SwitchoverRequest request;
  request.set_timeout_ms(static_cast<uint32_t>(options.timeout_us / 1000));
  const auto response = (*client)->Switchover(request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    context.Print(ProtoToJson(*response));
    return kExitOk;
  }
  const v1::PromotionReport& report = response->report();
  context.out() << report.node_id() << " is the primary of term " << report.term() << " from lsn " << report.start_lsn()
                << "; " << response->old_primary() << " is a replica\n"
                << "  writes paused  " << Millis(response->write_pause_us()) << "\n";
  PrintReport(context.out(), report);
  return kExitOk;
}

}  // namespace

void AddFailoverCommands(CLI::App& app, Selection& selection) {
  auto promote_options = std::make_shared<PromoteOptions>();
  CLI::App* promote = app.add_subcommand(
      "promote", "Make a replica the primary when the present one is gone; --endpoint names any node that is alive");
  promote->add_option("node", promote_options->node, "Node id, or HOST:PORT")->required();
  promote->add_flag("--dry-run", promote_options->dry_run, "Only ask the members, and say what would happen");
  CLI::Option* force =
      promote->add_flag("--force", promote_options->force,
                        "Also without a quorum, or beside a primary that is alive; says what may be lost");
  promote->add_flag("--yes", promote_options->yes, "With --force: do not ask")->needs(force);
  AddDuration(*promote, "--timeout", &promote_options->timeout_us, "Wait so long for each member's answer (500ms)");
  promote->footer(
      "Examples:\n  towctl --endpoint 127.0.0.1:7701 promote r1\n  towctl promote 127.0.0.1:7701 --dry-run");
  OnSelected(*promote, selection,
             [promote_options](Context& context) { return RunPromote(context, *promote_options); });

  auto switchover_options = std::make_shared<SwitchoverOptions>();
  CLI::App* switchover =
      app.add_subcommand("switchover", "Make a replica the primary with the help of the present one: nothing is lost");
  switchover->add_option("--to", switchover_options->to, "Node id, or HOST:PORT, of the next primary")->required();
  AddDuration(*switchover, "--timeout", &switchover_options->timeout_us,
              "Longest pause of writes; after it the old primary goes on (5s)");
  switchover->footer("Example:\n  towctl switchover --to r1");
  OnSelected(*switchover, selection,
             [switchover_options](Context& context) { return RunSwitchover(context, *switchover_options); });
}

}  // namespace towline::ctl
