// bootstrap: a replica loads a full snapshot because an operator says so.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/progress_line.h"
#include "ctl/status_table.h"

namespace towline::ctl {
namespace {

constexpr int64_t kPollMicros = 200'000;
constexpr auto kLineInterval = std::chrono::seconds(1);
constexpr auto kPatience = std::chrono::seconds(30);

struct BootstrapOptions {
  std::string node;
  bool watch = false;
};

// HOST:PORT of the node that is meant.
absl::StatusOr<std::string> AddressOf(const Context& context, const std::string& node) {
  if (absl::StrContains(node, ':')) return node;
  if (const absl::Status valid = ValidateName("NODE", node); !valid.ok()) {
    return UsageError(GetErrorInfo(valid).message);
  }
  TOWLINE_ASSIGN_OR_RETURN(const auto client, context.Connect());
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetTopologyResponse topology, client->GetTopology());
  if (node == topology.primary_node_id() && !topology.primary_address().empty()) return topology.primary_address();
  std::vector<std::string> known;
  for (const v1::Member& member : topology.members()) {
    if (member.node_id() == node && !member.address().empty()) return member.address();
    known.push_back(member.node_id());
  }
  return MakeError(absl::StatusCode::kNotFound, "member_not_found",
                   absl::StrCat(client->endpoint(), " knows no address of node ", node, "; its members are ",
                                known.empty() ? "none" : absl::StrJoin(known, ", ")),
                   "name one of them, or give HOST:PORT");
}

class Watch {
 public:
  Watch(Context& context, client::Client& client, std::string node)
      : context_(context), client_(client), node_(std::move(node)) {}

  // Until the node streams again. UNAVAILABLE, reason halted, with why: it does not go on by itself.
  absl::Status Run();

  const v1::BootstrapStatus& last() const { return last_; }
  double seconds() const { return std::chrono::duration<double>(SteadyClock::now() - begin_).count(); }

 private:
  using SteadyClock = std::chrono::steady_clock;

  absl::Status AskAgain();
  void Show(const v1::GetStatusResponse& status);

  Context& context_;
  client::Client& client_;
  const std::string node_;
  const SteadyClock::time_point begin_ = SteadyClock::now();
  std::optional<ProgressLine> line_;
  SteadyClock::time_point printed_ = begin_ - kLineInterval;
  double uptime_seconds_ = 0;  // at the last answer
  bool restarted_ = false;     // and the load not seen since
  v1::BootstrapStatus last_;   // of the load
};

absl::Status Watch::Run() {
  SteadyClock::time_point answered = SteadyClock::now();
  for (;;) {
    const absl::StatusOr<v1::GetStatusResponse> status = client_.GetStatus();
    if (context_.interrupt().triggered()) return absl::CancelledError("interrupted; the load goes on");
    if (status.ok()) {
      answered = SteadyClock::now();
      restarted_ = restarted_ || status->uptime_seconds() < uptime_seconds_;
      uptime_seconds_ = status->uptime_seconds();
      if (status->state() == "halted") {
        const std::string& message = status->upstream().message();
        return MakeError(
            absl::StatusCode::kUnavailable, "halted",
            absl::StrCat(node_, " is halted: ", status->state_reason(), message.empty() ? "" : ": ", message),
            "see towctl status of that node");
      }
      if (status->has_bootstrap()) {
        last_ = status->bootstrap();
        restarted_ = false;
      } else if (restarted_) {
        TOWLINE_RETURN_IF_ERROR(AskAgain());
      } else if (status->state() == "streaming") {
        return absl::OkStatus();
      }
      Show(*status);
    } else if (SteadyClock::now() - answered > kPatience) {
      return status.status();
    }
    if (context_.interrupt().WaitFor(kPollMicros)) return absl::CancelledError("interrupted; the load goes on");
  }
}

// A node forgets what it was asked for when it ends before the load has begun.
absl::Status Watch::AskAgain() {
  const auto response = client_.Bootstrap();
  if (response.ok() && !context_.json()) {
    if (line_) line_->Clear();
    context_.err() << node_ << " was restarted and loads nothing: asked it again" << std::endl;
  }
  if (response.ok() || absl::IsUnavailable(response.status())) {
    restarted_ = !response.ok();  // still starting
    return absl::OkStatus();
  }
  return response.status();
}

// On a terminal one line that is written over, else one a second.
void Watch::Show(const v1::GetStatusResponse& status) {
  const std::string text = status.has_bootstrap() ? BootstrapText(status.bootstrap())
                                                  : absl::StrCat(status.state(), ", ", status.upstream().state());
  if (context_.environment().err_is_terminal) {
    if (!line_) line_.emplace(context_, node_, 0);
    line_->ShowText(text);
    return;
  }
  if (context_.json() || SteadyClock::now() - printed_ < kLineInterval) return;
  printed_ = SteadyClock::now();
  context_.err() << node_ << "  " << text << std::endl;
}

int RunBootstrap(Context& context, const BootstrapOptions& options) {
  const auto address = AddressOf(context, options.node);
  if (!address.ok()) return context.Fail(address.status());
  const auto client = client::NewClient({*address, context.options().timeout_us, false});
  if (!client.ok()) return context.Fail(client.status());
  const auto response = (*client)->Bootstrap();
  if (!response.ok()) return context.Fail(response.status());
  Json json = Json::object();
  json["node"] = options.node;
  json["address"] = *address;
  json["already_running"] = response->already_running();
  if (!context.json()) {
    context.out() << options.node << " at " << *address
                  << (response->already_running() ? " loads a snapshot already" : " is asked to load a snapshot")
                  << std::endl;
  }
  absl::Status watched;
  if (options.watch) {
    Watch watch(context, **client, options.node);
    watched = watch.Run();
    json["ended"] = watched.ok() ? "streaming" : GetErrorInfo(watched).reason;
    json["bootstrap"] = ProtoToJson(watch.last());
    json["seconds"] = watch.seconds();
    if (watched.ok() && !context.json()) {
      context.out() << options.node << " streams again after " << FormatSeconds(watch.seconds()) << "\n";
    }
  }
  if (context.json()) context.Print(json);
  if (watched.ok()) return kExitOk;
  (void)context.FlushOut();
  const int code = context.Fail(watched);
  return GetErrorInfo(watched).reason == "halted" ? kExitUnhealthy : code;
}

}  // namespace

void AddBootstrapCommand(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<BootstrapOptions>();
  CLI::App* verb = app.add_subcommand("bootstrap", "Let a replica load a full snapshot though its log would do");
  verb->add_option("node", options->node, "The replica: HOST:PORT, or a node id that --endpoint knows")->required();
  verb->add_flag("--watch", options->watch, "Follow the load until the replica streams again");
  verb->footer(
      "The replica serves its present state until the new one is whole. A load that runs already goes on. A primary "
      "is\n"
      "refused (exit code 4). With --watch: exit code 3 with the reason if the replica halts; a restart of it is "
      "waited\n"
      "for, 30 s long.\n"
      "Examples:\n  towctl bootstrap r1 --watch\n  towctl bootstrap 127.0.0.1:7701");
  OnSelected(*verb, selection, [options](Context& context) { return RunBootstrap(context, *options); });
}

}  // namespace towline::ctl
