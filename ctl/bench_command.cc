// bench: closed-loop load, compared with RPCs that do nothing, measured in the same run.

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "common/error.h"
#include "common/names.h"
#include "ctl/app.h"
#include "ctl/bench_library.h"
#include "ctl/bench_load.h"
#include "ctl/bench_requests.h"
#include "ctl/bench_watch.h"
#include "ctl/durability_flags.h"

namespace towline::ctl {
namespace {

constexpr char kWriteMethod[] = "/towline.v1.KvService/Write";
constexpr char kGetMethod[] = "/towline.v1.KvService/Get";
constexpr char kPingMethod[] = "/towline.v1.AdminService/Ping";
constexpr uint64_t kLibraryCallsMax = 4096;
constexpr int64_t kCatchUpMicros = 120'000'000;

struct BenchOptions {
  std::string mode = "unary";
  uint64_t in_flight = 64;
  uint64_t streams = 1;
  uint64_t threads = 1;
  uint64_t value_bytes = 256;
  uint64_t batch = 64;
  uint64_t key_space = 1'000'000;
  int64_t micros = 10'000'000;
  int64_t warmup_micros = 1'000'000;
  bool watch_replicas = false;
  bool no_ceiling = false;
  bool no_fill = false;
  bool idle_probe = false;
  bool library = false;
  DurabilityFlags durability;
};

// Everything that one run found out.
struct BenchReport {
  LoadResult load;
  std::optional<LoadResult> ping_before;
  std::optional<LoadResult> ping_after;
  v1::WalStatus wal_before;
  v1::WalStatus wal_after;
  v1::CommitStatus commit_before;
  v1::CommitStatus commit_after;
  std::map<std::string, ReplicaWatch::Lag> lags;
  bool caught_up_known = false;
  std::optional<double> caught_up_seconds;
  bool primary_moved = false;  // then what comes from the node's own measurement is left out
};

class Bench {
 public:
  Bench(Context& context, const BenchOptions& options, std::optional<v1::Durability> durability,
        std::unique_ptr<client::Client> client)
      : context_(context), options_(options), durability_(std::move(durability)), client_(std::move(client)) {}

  int Run();

 private:
  bool streaming() const { return options_.mode == "stream"; }
  LoadOptions MakeLoad() const;
  std::optional<LoadResult> MeasureCeiling(const LoadOptions& load) const;
  LibraryLoad MakeLibraryLoad() const;
  void FindPrimaryAgain();
  absl::Status Fill() const;
  absl::Status Measure();
  double CeilingPerSecond() const;
  std::optional<double> FsyncMean() const;
  Json ReportJson() const;
  void PrintReport() const;

  Context& context_;
  const BenchOptions& options_;
  const std::optional<v1::Durability> durability_;
  std::unique_ptr<client::Client> client_;  // to the primary
  BenchReport report_;
};

LoadOptions Bench::MakeLoad() const {
  LoadOptions load;
  load.endpoint = client_->endpoint();
  load.key_space = options_.key_space;
  load.threads = static_cast<int>(options_.threads);
  load.in_flight = static_cast<int>(options_.in_flight);
  load.streams = static_cast<int>(options_.streams);
  load.batch = static_cast<int>(options_.batch);
  load.seconds = 1e-6 * static_cast<double>(options_.micros);
  load.warmup_seconds = 1e-6 * static_cast<double>(options_.warmup_micros);
  load.timeout_us = context_.options().timeout_us;
  load.interrupt = &context_.interrupt();
  if (streaming()) {
    load.request = StreamTemplate(options_.value_bytes, options_.batch, durability_);
  } else if (options_.mode == "get") {
    load.request = GetTemplate();
  } else if (options_.mode == "ping") {
    load.request = PingTemplate(options_.value_bytes);
  } else {
    load.request = WriteTemplate(options_.value_bytes, durability_);
  }
  return load;
}

LibraryLoad Bench::MakeLibraryLoad() const {
  using std::chrono::milliseconds;
  LibraryLoad load;
  load.client.endpoints = context_.endpoints();
  load.client.read_preference = ReadPreference::kLocalFirst;  // as without the library
  load.client.timeout = std::max(load.client.timeout, milliseconds(context_.options().timeout_us / 1000));
  if (durability_.has_value()) {
    load.client.durability = WriteDurability{durability_->replicas(), durability_->stage() == v1::COMMIT_STAGE_APPLIED,
                                             milliseconds(durability_->timeout_ms()),
                                             durability_->on_timeout() == v1::ON_COMMIT_TIMEOUT_ACCEPT};
  }
  load.mode = streaming() ? LibraryMode::kBatcher : options_.mode == "get" ? LibraryMode::kGet : LibraryMode::kPut;
  load.value_bytes = options_.value_bytes;
  return load;
}

// It may have become another node meanwhile, or be none of the endpoints given.
void Bench::FindPrimaryAgain() {
  auto primary = context_.ConnectToPrimary();
  report_.primary_moved = !primary.ok() || (*primary)->endpoint() != client_->endpoint() || !client_->GetStatus().ok();
}

// Pings with as many bytes and as many in flight as the load has.
std::optional<LoadResult> Bench::MeasureCeiling(const LoadOptions& load) const {
  if (options_.no_ceiling || options_.mode == "ping" || context_.interrupt().triggered()) return std::nullopt;
  LoadOptions ping = load;
  ping.request = PingTemplate(std::min<size_t>(load.request.bytes.size(), 1u << 20));
  ping.in_flight = load.in_flight * (streaming() ? load.streams : 1);
  ping.seconds = std::clamp(load.seconds / 5, 0.5, 3.0);
  ping.warmup_seconds = 0.2;
  return RunUnaryLoad(ping, kPingMethod);
}

// Gives every key of the key space a value, so that reads find something.
absl::Status Bench::Fill() const {
  absl::Status refused;
  const auto stream =
      client_->OpenWriteStream(client::WriteStreamOptions(), [&refused](const client::WriteStreamAnswer& answer) {
        if (refused.ok() && !answer.refused.empty()) {
          refused = MakeError(absl::StatusCode::kAborted, answer.refused[0].error);
        }
      });
  const std::string value(options_.value_bytes, 'v');
  for (uint64_t i = 0; i < options_.key_space && !context_.interrupt().triggered(); ++i) {
    v1::WriteRequest element;
    v1::Put* put = element.add_operations()->mutable_put();
    put->set_key(BenchKey(i));
    put->set_value(value);
    TOWLINE_RETURN_IF_ERROR(stream->Add(std::move(element)).status());
  }
  const absl::Status end = stream->Finish();
  return end.ok() ? refused : end;
}

absl::Status Bench::Measure() {
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse first, client_->GetStatus());
  if (options_.mode == "get" && !options_.no_fill) TOWLINE_RETURN_IF_ERROR(Fill());
  const LoadOptions load = MakeLoad();
  report_.ping_before = MeasureCeiling(load);
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse before, client_->GetStatus());
  report_.wal_before = before.wal();
  report_.commit_before = before.commit();
  std::unique_ptr<ReplicaWatch> watch;
  if (options_.watch_replicas) watch = std::make_unique<ReplicaWatch>(*client_);
  if (options_.library) {
    TOWLINE_ASSIGN_OR_RETURN(report_.load, RunLibraryLoad(load, MakeLibraryLoad()));
    FindPrimaryAgain();
    if (report_.primary_moved) {
      report_.commit_after = report_.commit_before;
      return absl::OkStatus();
    }
  } else if (streaming()) {
    report_.load = RunStreamLoad(load);
  } else {
    const std::map<std::string, std::string> methods = {
        {"unary", kWriteMethod}, {"get", kGetMethod}, {"ping", kPingMethod}};
    report_.load = RunUnaryLoad(load, methods.at(options_.mode));
  }
  if (watch != nullptr) {
    report_.caught_up_known = true;
    report_.caught_up_seconds = watch->WaitCaughtUp(context_.interrupt(), kCatchUpMicros);
    report_.lags = watch->Stop();
  }
  TOWLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse after, client_->GetStatus());
  report_.wal_after = after.wal();
  report_.commit_after = after.commit();
  report_.ping_after = MeasureCeiling(load);
  return absl::OkStatus();
}

double Bench::CeilingPerSecond() const {
  double sum = 0;
  int count = 0;
  for (const auto* ping : {&report_.ping_before, &report_.ping_after}) {
    if (!ping->has_value()) continue;
    sum += (*ping)->per_second((*ping)->calls);
    ++count;
  }
  return count == 0 ? 0 : sum / count;
}

// Of the run alone, from the totals before and after.
std::optional<double> Bench::FsyncMean() const {
  const v1::WalStatus& before = report_.wal_before;
  const v1::WalStatus& after = report_.wal_after;
  if (after.fsync_total() <= before.fsync_total()) return std::nullopt;
  const auto sum = [](const v1::WalStatus& wal) {
    return wal.fsync_mean_seconds() * static_cast<double>(wal.fsync_total());
  };
  return (sum(after) - sum(before)) / static_cast<double>(after.fsync_total() - before.fsync_total());
}

Json LatencyJson(const Histogram& latency_ns) {
  const auto micros = [](uint64_t ns) { return static_cast<double>(ns) / 1e3; };
  Json json = Json::object();
  json["p50"] = micros(latency_ns.Quantile(0.5));
  json["p90"] = micros(latency_ns.Quantile(0.9));
  json["p99"] = micros(latency_ns.Quantile(0.99));
  json["p99_9"] = micros(latency_ns.Quantile(0.999));
  json["max"] = micros(latency_ns.max());
  json["mean"] = latency_ns.mean() / 1e3;
  return json;
}

Json OrNull(const std::optional<double>& value) { return value.has_value() ? Json(*value) : Json(nullptr); }

Json Bench::ReportJson() const {
  const LoadResult& load = report_.load;
  const v1::WalStatus& wal = report_.wal_after;
  Json json = Json::object();
  json["mode"] = options_.mode;
  json["endpoint"] = client_->endpoint();
  json["in_flight"] = options_.in_flight;
  json["threads"] = options_.threads;
  json["streams"] = streaming() ? Json(options_.streams) : Json(nullptr);
  json["batch"] = streaming() ? Json(options_.batch) : Json(nullptr);
  json["value_bytes"] = options_.value_bytes;
  json["key_space"] = options_.key_space;
  json["seconds"] = load.seconds;
  json["calls"] = load.calls;
  json["records"] = load.records;
  json["errors"] = load.errors;
  json["interrupted"] = load.interrupted;
  json["calls_per_second"] = load.per_second(load.calls);
  json["records_per_second"] = load.per_second(load.records);
  json["latency_us"] = LatencyJson(load.latency_ns);
  json["client_cpu_cores"] = load.seconds > 0 ? load.cpu_seconds / load.seconds : 0;
  Json ping = nullptr;
  if (report_.ping_before.has_value()) {
    const auto rate = [](const std::optional<LoadResult>& r) {
      return r ? Json(r->per_second(r->calls)) : Json(nullptr);
    };
    ping = Json::object();
    ping["calls_per_second"] = CeilingPerSecond();
    ping["before"] = rate(report_.ping_before);
    ping["after"] = rate(report_.ping_after);
    ping["latency_us"] = LatencyJson(report_.ping_before->latency_ns);
  }
  json["ping"] = ping;
  const double ceiling = CeilingPerSecond();
  json["ratio_to_ping"] = ceiling > 0 ? Json(load.per_second(load.calls) / ceiling) : Json(nullptr);
  Json fsync = Json::object();
  fsync["total"] = wal.fsync_total() - std::min(wal.fsync_total(), report_.wal_before.fsync_total());
  fsync["mean_seconds"] = OrNull(FsyncMean());
  fsync["p50_seconds"] = wal.has_fsync_p50_seconds() ? Json(wal.fsync_p50_seconds()) : Json(nullptr);
  fsync["p99_seconds"] = wal.has_fsync_p99_seconds() ? Json(wal.fsync_p99_seconds()) : Json(nullptr);
  json["server_fsync"] = fsync;
  json["library"] = options_.library;
  json["primary_moved"] = report_.primary_moved;
  json["durability"] = durability_.has_value() ? ProtoToJson(*durability_) : Json(nullptr);
  Json achieved = Json::object();
  achieved["timeouts"] = report_.commit_after.timeouts_total() - report_.commit_before.timeouts_total();
  achieved["degraded"] = report_.commit_after.degraded();
  json["achieved"] = achieved;
  Json replicas = Json::array();
  for (const auto& [node_id, lag] : report_.lags) {
    replicas.push_back(
        Json{{"node_id", node_id}, {"min_lag_records", lag.min_records}, {"max_lag_records", lag.max_records}});
  }
  json["replicas"] = std::move(replicas);
  json["replicas_caught_up_seconds"] = OrNull(report_.caught_up_seconds);
  return json;
}

void Bench::PrintReport() const {
  const LoadResult& load = report_.load;
  std::ostream& out = context_.out();
  const auto time = [&load](double q) {
    return FormatSeconds(1e-9 * static_cast<double>(load.latency_ns.Quantile(q)));
  };
  out << "mode        " << options_.mode << ", " << options_.in_flight << (streaming() ? " batches" : "")
      << " in flight"
      << (streaming() ? absl::StrCat(" on each of ", options_.streams, " streams, ", options_.batch, " per batch") : "")
      << ", values of " << options_.value_bytes << " bytes" << (options_.library ? ", through the client library" : "")
      << "\n";
  if (report_.primary_moved) out << "primary     another node than at the beginning\n";
  out << absl::StrFormat("throughput  %.0f calls/s, %.0f records/s over %.2f s, %d errors\n",
                         load.per_second(load.calls), load.per_second(load.records), load.seconds, load.errors);
  out << "latency     p50 " << time(0.5) << ", p90 " << time(0.9) << ", p99 " << time(0.99) << ", p99.9 " << time(0.999)
      << ", max " << FormatSeconds(1e-9 * static_cast<double>(load.latency_ns.max())) << "\n";
  const double ceiling = CeilingPerSecond();
  if (ceiling > 0) {
    out << absl::StrFormat("null RPC    %.0f calls/s (before %.0f", ceiling,
                           report_.ping_before->per_second(report_.ping_before->calls));
    if (report_.ping_after.has_value()) {
      out << absl::StrFormat(", after %.0f", report_.ping_after->per_second(report_.ping_after->calls));
    }
    out << absl::StrFormat("), ratio %.2f\n", load.per_second(load.calls) / ceiling);
  }
  const std::optional<double> mean = FsyncMean();
  if (mean.has_value()) {
    const v1::WalStatus& wal = report_.wal_after;
    out << "fsync       " << wal.fsync_total() - report_.wal_before.fsync_total() << " calls, mean "
        << FormatSeconds(*mean) << ", p50 " << FormatSeconds(wal.fsync_p50_seconds()) << ", p99 "
        << FormatSeconds(wal.fsync_p99_seconds()) << "\n";
  }
  if (durability_.has_value()) {
    out << "level       " << durability_->replicas() << " replicas "
        << (durability_->stage() == v1::COMMIT_STAGE_APPLIED ? "applied" : "flushed") << ", "
        << report_.commit_after.timeouts_total() - report_.commit_before.timeouts_total() << " timeouts\n";
  }
  out << absl::StrFormat("client      %.2f cores\n", load.seconds > 0 ? load.cpu_seconds / load.seconds : 0);
  for (const auto& [node_id, lag] : report_.lags) {
    out << "replica     " << node_id << ": lag " << lag.min_records << " to " << lag.max_records << " records\n";
  }
  if (report_.caught_up_known) {
    out << "caught up   " << (report_.caught_up_seconds ? "after " + FormatSeconds(*report_.caught_up_seconds) : "NOT")
        << "\n";
  }
}

int Bench::Run() {
  const absl::Status status = Measure();
  if (!status.ok()) return context_.Fail(status);
  if (context_.json()) {
    context_.Print(ReportJson());
  } else {
    PrintReport();
  }
  (void)context_.FlushOut();
  if (!report_.load.first_error.ok()) return context_.Fail(report_.load.first_error);
  if (report_.caught_up_known && !report_.caught_up_seconds.has_value()) return kExitUnhealthy;
  return report_.load.interrupted ? kExitError : kExitOk;
}

// One write after each silence of 1.00 to 1.12 s, where pollers that go to sleep would show.
int RunIdleProbe(Context& context, client::Client& client, const BenchOptions& options) {
  constexpr int kStepsMs[] = {1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070, 1080, 1090, 1100, 1110, 1120};
  constexpr int kRepeats = 5;
  v1::WriteRequest request;
  v1::Put* put = request.add_operations()->mutable_put();
  put->set_value(std::string(options.value_bytes, 'v'));
  Json steps = Json::array();
  Table table({"IDLE_MS", "SLOWEST_US"});
  double slowest = 0;
  int slowest_idle_ms = 0;
  for (const int idle_ms : kStepsMs) {
    double slowest_here = 0;
    for (int i = 0; i < kRepeats; ++i) {
      if (context.interrupt().WaitFor(idle_ms * 1000)) return context.Fail(absl::CancelledError("interrupted"));
      put->set_key(BenchKey(static_cast<uint64_t>(i)));
      const auto begin = std::chrono::steady_clock::now();
      const absl::Status status = client.Write(request).status();
      if (!status.ok()) return context.Fail(status);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      slowest_here = std::max(slowest_here, took.count());
    }
    if (slowest_here > slowest) {
      slowest = slowest_here;
      slowest_idle_ms = idle_ms;
    }
    steps.push_back(Json{{"idle_ms", idle_ms}, {"slowest_us", slowest_here * 1e6}});
    table.Add({absl::StrCat(idle_ms), absl::StrFormat("%.0f", slowest_here * 1e6)});
  }
  if (context.json()) {
    context.Print(Json{{"mode", "idle_probe"},
                       {"slowest_us", slowest * 1e6},
                       {"slowest_idle_ms", slowest_idle_ms},
                       {"steps", std::move(steps)}});
  } else {
    table.Print(context.out());
    context.out() << "slowest " << FormatSeconds(slowest) << " after " << slowest_idle_ms << " ms of silence\n";
  }
  return kExitOk;
}

absl::Status CheckOptions(const BenchOptions& options) {
  if (options.micros < 10'000) return UsageError("--seconds must be at least 10ms");
  if (options.value_bytes > (8u << 20)) return UsageError("--value-size must be at most 8MiB");
  if (options.mode == "ping" && options.value_bytes > (1u << 20)) {
    return UsageError("--value-size must be at most 1MiB in mode ping");
  }
  if (options.library && (options.mode == "ping" || options.idle_probe || options.watch_replicas)) {
    return UsageError("--library goes with modes unary, stream and get, and not with --watch-replicas or --idle-probe");
  }
  if (options.library && options.mode != "stream" && options.in_flight > kLibraryCallsMax) {
    return UsageError(
        absl::StrCat("--library takes at most ", kLibraryCallsMax, " calls in flight: each has a thread"));
  }
  if (options.mode == "stream" && options.batch * (options.value_bytes + 64) > (8u << 20)) {
    return UsageError(absl::StrCat("--batch ", options.batch, " with --value-size ", options.value_bytes,
                                   " makes messages above 8MiB"));
  }
  return absl::OkStatus();
}

int RunBench(Context& context, const BenchOptions& options) {
  const absl::Status valid = CheckOptions(options);
  if (!valid.ok()) return context.Fail(valid);
  auto client = context.ConnectToPrimary();
  if (!client.ok()) return context.Fail(client.status());
  if (options.idle_probe) return RunIdleProbe(context, **client, options);
  const auto durability = DurabilityOf(options.durability);
  if (!durability.ok()) return context.Fail(durability.status());
  return Bench(context, options, *durability, *std::move(client)).Run();
}

// "10" and "10s" are both seconds.
CLI::Option* AddSeconds(CLI::App& app, const std::string& name, int64_t* micros, const std::string& help) {
  return AddDuration(app, name, micros, help)->transform([](std::string text) {
    const bool bare = !text.empty() && text.find_first_not_of("0123456789.") == std::string::npos;
    return bare ? text + "s" : text;
  });
}

}  // namespace

void AddBenchCommand(CLI::App& app, Selection& selection) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* bench =
      app.add_subcommand("bench", "Measure throughput and latency, and compare with calls that do nothing");
  bench->add_option("--mode", options->mode, "unary (writes), stream (writes), get or ping")
      ->check(CLI::IsMember({"unary", "stream", "get", "ping"}))
      ->capture_default_str();
  AddNumber(*bench, "--in-flight", &options->in_flight, "Calls, or batches per stream, in flight (default 64)", 1,
            65536);
  AddNumber(*bench, "--threads", &options->threads, "Threads, each with a connection (default 1)", 1, 64);
  AddNumber(*bench, "--streams", &options->streams, "Streams of mode stream (default 1)", 1, 1024);
  AddNumber(*bench, "--batch", &options->batch, "Records per batch of mode stream (default 64)", 1, 65536);
  AddBytes(*bench, "--value-size", &options->value_bytes, "Bytes of a value, or of a ping (default 256B)");
  AddNumber(*bench, "--key-space", &options->key_space, "Number of different keys (default 1000000)", 1,
            1'000'000'000'000);
  AddSeconds(*bench, "--seconds", &options->micros, "Measured time (default 10s)");
  AddSeconds(*bench, "--warmup", &options->warmup_micros, "Time before that (default 1s)");
  AddDurabilityFlags(*bench, &options->durability);
  bench->add_flag("--watch-replicas", options->watch_replicas,
                  "Follow the replicas' lag, and wait until there is none");
  bench->add_flag("--no-ceiling", options->no_ceiling, "Do not measure calls that do nothing");
  bench->add_flag("--no-fill", options->no_fill, "Mode get: do not write the keys first");
  bench->add_flag("--idle-probe", options->idle_probe, "One write after each of 65 silences of about a second instead");
  bench->add_flag(
      "--library", options->library,
      "Through the C++ client library: a thread per call in flight; follows the primary, repeats what is safe");
  bench->footer(
      "Keys are bench-000000000000 and on; they stay in the store.\n"
      "Examples:\n  towctl bench --mode unary --in-flight 64 --seconds 10\n"
      "  towctl bench --mode stream --batch 256 --in-flight 8 --watch-replicas -o json");
  OnSelected(*bench, selection, [options](Context& context) { return RunBench(context, *options); });
}

}  // namespace towline::ctl
