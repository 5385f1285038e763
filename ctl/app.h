// How verbs are added and run. Each *_command(s).cc adds its verbs with one of the functions below.

#ifndef TOWLINE_CTL_APP_H_
#define TOWLINE_CTL_APP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "CLI/CLI.hpp"
#include "client/client.h"
#include "client/cluster_client.h"
#include "client/proto_json.h"
#include "ctl/environment.h"
#include "ctl/output.h"

namespace towline::ctl {

// Options that stand before or after the verb.
struct GlobalOptions {
  std::string endpoint = "127.0.0.1:7700";  // or several, separated by commas
  bool json = false;
  int64_t timeout_us = 10'000'000;
  bool follow = false;
};

// One run of a verb.
class Context {
 public:
  Context(Environment& environment, const GlobalOptions& options) : environment_(environment), options_(options) {}

  const GlobalOptions& options() const { return options_; }
  bool json() const { return options_.json; }
  std::ostream& out() { return *environment_.out; }
  std::ostream& err() { return *environment_.err; }
  Environment& environment() { return environment_; }
  const Interrupt& interrupt() const { return *environment_.interrupt; }

  // The endpoints given, one or more.
  std::vector<std::string> endpoints() const;

  // To the first endpoint.
  absl::StatusOr<std::unique_ptr<client::Client>> Connect() const;

  // To the primary, if there are several endpoints or --follow is given; else to the endpoint.
  absl::StatusOr<std::unique_ptr<client::Client>> ConnectToPrimary() const;

  // To all endpoints: writes go to the primary among them, or with --follow to any, with repetition until the timeout.
  // Reads go to the first endpoint that answers. Nothing is remembered between calls.
  absl::StatusOr<std::unique_ptr<client::ClusterClient>> ConnectCluster() const;

  void Print(const Json& json) { PrintJson(out(), environment_.out_is_terminal, json); }

  // Prints `error`; returns its exit code.
  int Fail(const absl::Status& error) { return PrintError(err(), options_.json, error); }

  // Asks on the terminal whether to do what `question` says; `assumed` (--yes) answers for whoever is not there.
  // FAILED_PRECONDITION, reason not_confirmed: the answer is no, or there is no terminal to ask on.
  absl::Status Confirm(const std::string& question, bool assumed);

  // Whether everything so far reached standard output.
  absl::Status FlushOut();

 private:
  Environment& environment_;
  const GlobalOptions& options_;
};

using Verb = std::function<int(Context&)>;

// The verb that the arguments chose.
struct Selection {
  Verb verb;
};

// Runs `verb` when `app` is the chosen subcommand.
void OnSelected(CLI::App& app, Selection& selection, Verb verb);

void AddKvCommands(CLI::App& app, Selection& selection);
void AddExportCommand(CLI::App& app, Selection& selection);
void AddImportCommand(CLI::App& app, Selection& selection);
void AddSnapshotCommands(CLI::App& app, Selection& selection);
void AddSnapshotSaveCommand(CLI::App& snapshot, Selection& selection);
void AddSnapshotLoadCommand(CLI::App& snapshot, Selection& selection);
void AddTailCommand(CLI::App& app, Selection& selection);
void AddStatusCommands(CLI::App& app, Selection& selection);
void AddSlotCommands(CLI::App& app, Selection& selection);
void AddSlotExplainCommand(CLI::App& slot, Selection& selection);
void AddMemberCommands(CLI::App& app, Selection& selection);
void AddBootstrapCommand(CLI::App& app, Selection& selection);
void AddRecoverCommand(CLI::App& app, Selection& selection);
void AddFailoverCommands(CLI::App& app, Selection& selection);
void AddForecastCommand(CLI::App& slot, Selection& selection);  // below `slot`
void AddWalCommands(CLI::App& app, Selection& selection);
void AddBenchCommand(CLI::App& app, Selection& selection);
void AddDrillCommands(CLI::App& app, Selection& selection);

// Options with units and ranges; errors name the option and what is wrong with the value.
CLI::Option* AddDuration(CLI::App& app, const std::string& name, int64_t* micros, const std::string& help);
CLI::Option* AddBytes(CLI::App& app, const std::string& name, uint64_t* bytes, const std::string& help);
CLI::Option* AddNumber(CLI::App& app, const std::string& name, uint64_t* number, const std::string& help,
                       uint64_t min = 0, uint64_t max = UINT64_MAX);

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_APP_H_
