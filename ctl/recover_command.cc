// recover: the way out of state recovery_required.

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "ctl/app.h"
#include "ctl/ask_node.h"

namespace towline::ctl {
namespace {

struct RecoverOptions {
  std::string from;
  bool accept_loss = false;
};

// Who holds how much; the hint names the one that holds most.
int RunShow(Context& context, client::Client& client) {
  const auto status = client.GetStatus();
  if (!status.ok()) return context.Fail(status.status());
  const bool required = status->state() == "recovery_required";
  const uint64_t own = status->wal().durable_lsn();
  Table table({"node", "address", "lsn", "ahead", "answer"});
  Json members = Json::array();
  std::string best;
  uint64_t best_lsn = own;
  for (const v1::Member& member : status->members()) {
    if (member.node_id() == status->node_id()) continue;
    const absl::StatusOr<v1::PullStart> answer = AskNodeForStart(context, member.address());
    const uint64_t lsn = answer.ok() ? answer->lsn() : 0;
    const uint64_t ahead = lsn > own ? lsn - own : 0;
    if (lsn > best_lsn) {
      best = member.node_id();
      best_lsn = lsn;
    }
    const std::string said = answer.ok() ? "ok" : GetErrorInfo(answer.status()).message;
    table.Add({member.node_id(), member.address(), answer.ok() ? absl::StrCat(lsn) : "-",
               answer.ok() ? absl::StrCat(ahead) : "-", said});
    members.push_back({{"node_id", member.node_id()},
                       {"address", member.address()},
                       {"lsn", answer.ok() ? Json(lsn) : Json()},
                       {"ahead_records", answer.ok() ? Json(ahead) : Json()},
                       {"answer", said}});
  }
  if (context.json()) {
    context.Print({{"recovery_required", required},
                   {"state_reason", status->state_reason()},
                   {"durable_lsn", own},
                   {"members", members},
                   {"suggested_from", best.empty() ? Json() : Json(best)}});
    return required ? kExitUnhealthy : kExitOk;
  }
  context.out() << status->node_id() << " is " << status->state() << ", durable lsn " << own << "\n";
  table.Print(context.out());
  if (!required) {
    context.out() << "nothing is to be recovered\n";
    return kExitOk;
  }
  if (!best.empty()) context.out() << "fetch what was lost:  towctl recover --from " << best << "\n";
  context.out() << "or give it up:        towctl recover --accept-loss\n";
  return kExitUnhealthy;
}

int RunRecover(Context& context, const RecoverOptions& options) {
  auto client = context.Connect();
  if (!client.ok()) return context.Fail(client.status());
  if (options.from.empty() && !options.accept_loss) return RunShow(context, **client);
  v1::RecoverRequest request;
  if (options.accept_loss) {
    request.set_accept_loss(true);
  } else {
    request.set_from(options.from);
  }
  const auto response = (*client)->Recover(request);
  if (!response.ok()) return context.Fail(response.status());
  if (context.json()) {
    context.Print(ProtoToJson(*response));
    return kExitOk;
  }
  if (options.accept_loss) {
    context.out() << "term " << response->term() << " begins behind lsn " << response->old_durable_lsn()
                  << "; nodes that hold more are bootstrapped anew\n";
  } else {
    context.out() << "recovered " << response->durable_lsn() - response->old_durable_lsn() << " records, lsn "
                  << response->old_durable_lsn() + 1 << " to " << response->durable_lsn() << "\n";
  }
  return kExitOk;
}

}  // namespace

void AddRecoverCommand(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<RecoverOptions>();
  CLI::App* recover = app.add_subcommand(
      "recover", "Bring a primary out of recovery_required; without options, say which member holds what it lost");
  CLI::Option* from =
      recover->add_option("--from", options->from, "Pull the lost records from this member (node id or HOST:PORT)");
  recover
      ->add_flag("--accept-loss", options->accept_loss,
                 "Give them up: a new term begins behind the primary's own end, and nodes that hold more diverge")
      ->excludes(from);
  recover->footer("Examples:\n  towctl recover\n  towctl recover --from r1\n  towctl recover --accept-loss");
  OnSelected(*recover, selection, [options](Context& context) { return RunRecover(context, *options); });
}

}  // namespace towline::ctl
