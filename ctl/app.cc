#include "ctl/app.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <unistd.h>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/names.h"

namespace towline::ctl {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  towctl put greeting hello && towctl get greeting\n"
    "  towctl scan --prefix user/ -o json\n"
    "  towctl --endpoint 127.0.0.1:7701 status\n"
    "  towctl import users.jsonl --checkpoint users.ckpt\n"
    "  towctl tail --slot indexer --create\n"
    "\n"
    "Exit codes: 0 ok, 1 error, 2 usage, 3 unhealthy or over a threshold, 4 refused by a guard, 5 not the primary.";

[[noreturn]] void BadValue(const std::string& name, const std::string& value, const std::string& why) {
  throw CLI::ValidationError(name, absl::StrCat("\"", Printable(value), "\": ", why));
}

void AddGlobalOptions(CLI::App& app, GlobalOptions& options) {
  app.add_option(
         "--endpoint", options.endpoint,
         "gRPC endpoint of the node, HOST:PORT; several, separated by commas, for put, del, get, scan, import, bench")
      ->envname("TOWLINE_ENDPOINT")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "-o,--output", [&options](const std::string& format) { options.json = format == "json"; },
         "Output format: table or json (default table)")
      ->check(CLI::IsMember({"table", "json"}));
  AddDuration(app, "--timeout", &options.timeout_us, "Longest wait for one answer, such as 500ms or 10s (default 10s)");
  app.add_flag("--follow", options.follow,
               "Write to the primary, whichever node that is, and wait for it up to --timeout");
}

int ReportParseError(const CLI::ParseError& error, const std::vector<std::string>& arguments,
                     Environment& environment) {
  bool json = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool is_output = arguments[i] == "-o" || arguments[i] == "--output";
    json = json || (is_output && i + 1 < arguments.size() && arguments[i + 1] == "json") || arguments[i] == "-ojson" ||
           arguments[i] == "--output=json";
  }
  std::string message = error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  return PrintError(*environment.err, json, UsageError(message));
}

}  // namespace

std::vector<std::string> Context::endpoints() const { return absl::StrSplit(options_.endpoint, ','); }

absl::StatusOr<std::unique_ptr<client::Client>> Context::Connect() const {
  return client::NewClient({endpoints()[0], options_.timeout_us, options_.follow});
}

absl::StatusOr<std::unique_ptr<client::Client>> Context::ConnectToPrimary() const {
  TOWLINE_ASSIGN_OR_RETURN(const auto cluster, ConnectCluster());
  TOWLINE_ASSIGN_OR_RETURN(const std::string primary, cluster->FindPrimary(options_.timeout_us));
  return client::NewClient({primary, options_.timeout_us, options_.follow});
}

absl::StatusOr<std::unique_ptr<client::ClusterClient>> Context::ConnectCluster() const {
  using std::chrono::milliseconds;
  constexpr milliseconds kAttempt(5000);
  ClientOptions cluster;
  cluster.endpoints = endpoints();
  cluster.timeout = milliseconds(std::max<int64_t>(1, options_.timeout_us / 1000));
  cluster.attempt_timeout = options_.follow ? std::min(kAttempt, cluster.timeout) : cluster.timeout;
  cluster.rounds_max = options_.follow ? 0 : 1;
  cluster.follow = options_.follow;
  cluster.read_preference = ReadPreference::kLocalFirst;
  cluster.session_reads = false;
  return client::ClusterClient::Make(cluster);
}

absl::Status Context::FlushOut() {
  out().flush();
  if (out().good()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInternal, "output_failed", "standard output cannot be written");
}

absl::Status Context::Confirm(const std::string& question, bool assumed) {
  if (assumed) return absl::OkStatus();
  if (!environment_.input_is_terminal) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "not_confirmed",
                     absl::StrCat(question, ". Standard input is no terminal to ask on"),
                     "give --yes to do it without a question");
  }
  err() << question << "\nGo on? [y/N] " << std::flush;
  std::string answer;
  char c = 0;
  while (interrupt().WaitReadable(environment_.input_fd) && read(environment_.input_fd, &c, 1) == 1 && c != '\n') {
    answer.push_back(c);
  }
  if (answer == "y" || answer == "yes") return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "not_confirmed", "the answer was not yes; nothing was done");
}

void OnSelected(CLI::App& app, Selection& selection, Verb verb) {
  app.callback([&selection, run = std::move(verb)] { selection.verb = run; });
}

CLI::Option* AddDuration(CLI::App& app, const std::string& name, int64_t* micros, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [name, micros](const std::string& text) {
            const auto value = ParseDurationMicros(text);
            if (!value.ok()) BadValue(name, text, GetErrorInfo(value.status()).message);
            if (*value < 0) BadValue(name, text, "it must not be negative");
            *micros = *value;
          },
          help)
      ->type_name("DURATION");
}

CLI::Option* AddBytes(CLI::App& app, const std::string& name, uint64_t* bytes, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [name, bytes](const std::string& text) {
            const auto value = ParseBytes(text);
            if (!value.ok()) BadValue(name, text, GetErrorInfo(value.status()).message);
            *bytes = *value;
          },
          help)
      ->type_name("BYTES");
}

CLI::Option* AddNumber(CLI::App& app, const std::string& name, uint64_t* number, const std::string& help, uint64_t min,
                       uint64_t max) {
  return app
      .add_option_function<std::string>(
          name,
          [name, number, min, max](const std::string& text) {
            uint64_t value = 0;
            const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
            if (!digits || !absl::SimpleAtoi(text, &value)) BadValue(name, text, "it is not a whole number");
            if (value < min || value > max) {
              BadValue(name, text, absl::StrCat("it must be from ", min, " to ", max));
            }
            *number = value;
          },
          help)
      ->type_name("N");
}

int RunTowctl(const std::vector<std::string>& arguments, Environment& environment) {
  CLI::App app("towctl: the command line of Towline.", "towctl");
  app.footer(kFooter);
  app.fallthrough();
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("towctl ") + TOWLINE_VERSION, "Print the version");
  app.get_formatter()->column_width(34);
  GlobalOptions options;
  Selection selection;
  AddGlobalOptions(app, options);
  AddKvCommands(app, selection);
  AddExportCommand(app, selection);
  AddImportCommand(app, selection);
  AddSnapshotCommands(app, selection);
  AddTailCommand(app, selection);
  AddStatusCommands(app, selection);
  AddSlotCommands(app, selection);
  AddMemberCommands(app, selection);
  AddBootstrapCommand(app, selection);
  AddRecoverCommand(app, selection);
  AddFailoverCommands(app, selection);
  AddWalCommands(app, selection);
  AddBenchCommand(app, selection);
  AddDrillCommands(app, selection);

  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    *environment.out << app.help();
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    *environment.out << version.what() << "\n";
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    return ReportParseError(error, arguments, environment);
  }
  Context context(environment, options);
  try {
    if (!selection.verb) return context.Fail(UsageError("no verb was given"));
    const int code = selection.verb(context);
    const absl::Status flushed = context.FlushOut();
    return code == kExitOk && !flushed.ok() ? context.Fail(flushed) : code;
  } catch (const std::exception& error) {
    return context.Fail(absl::InternalError(error.what()));
  }
}

}  // namespace towline::ctl
