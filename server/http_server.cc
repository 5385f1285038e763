#include "server/http_server.h"

#include <httplib.h>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "client/proto_json.h"
#include "common/error.h"
#include "common/names.h"
#include "server/endpoint.h"
#include "server/metrics.h"
#include "server/status_report.h"

namespace towline {
namespace {

constexpr int kOk = 200;
constexpr int kUnavailable = 503;
constexpr int kBadRequest = 400;

void Answer(httplib::Response& response, int status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", "text/plain; charset=utf-8");
}

// Why the replica's state is older than the request allows; empty = it is not. INVALID_ARGUMENT for a malformed bound.
absl::StatusOr<std::string> OverBound(Node& node, const ReplicaStatusView& status, const httplib::Request& request) {
  const auto live = node.Live();
  if (request.has_param("lag")) {
    TOWLINE_ASSIGN_OR_RETURN(const uint64_t most, ParseBytes(request.get_param_value("lag")));
    const Lsn applied = live == nullptr ? 0 : live->applier().applied_lsn();
    const uint64_t behind = live == nullptr ? UINT64_MAX : live->spool().BytesBehind(applied);
    if (status.upstream_durable_lsn > applied && behind > most) return absl::StrCat("lag of ", behind, " bytes");
  }
  if (request.has_param("lag_time")) {
    TOWLINE_ASSIGN_OR_RETURN(const int64_t most, ParseDurationMicros(request.get_param_value("lag_time")));
    const std::optional<double> staleness = node.StalenessSeconds();
    if (!staleness || *staleness * 1e6 > static_cast<double>(most)) {
      return staleness ? absl::StrCat("lag of ", *staleness, " s") : std::string("no heartbeat yet");
    }
  }
  return std::string();
}

// A replica is fit while it streams and its lag is within the bounds that the request names.
void AnswerReplica(Node& node, const httplib::Request& request, httplib::Response& response) {
  const auto status = node.ReplicaStatus();
  if (!status) return Answer(response, kUnavailable, "not a replica");
  const absl::StatusOr<std::string> over = OverBound(node, *status, request);
  if (!over.ok()) return Answer(response, kBadRequest, GetErrorInfo(over.status()).message);
  if (status->state != "streaming") return Answer(response, kUnavailable, status->state);
  if (!over->empty()) return Answer(response, kUnavailable, *over);
  Answer(response, kOk, "streaming");
}

class HttpServerImpl final : public HttpServer {
 public:
  explicit HttpServerImpl(Node& node) : node_(node) {
    // Two daemons on one port must be an error, not a lottery.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    server_.set_payload_max_length(1 << 16);
    server_.new_task_queue = [] { return new httplib::ThreadPool(2); };
    AddRoutes();
  }

  ~HttpServerImpl() override { Stop(); }

  absl::Status Start(const Endpoint& endpoint) {
    if (endpoint.port == 0) {
      port_ = server_.bind_to_any_port(endpoint.host);
    } else {
      port_ = server_.bind_to_port(endpoint.host, endpoint.port) ? endpoint.port : -1;
    }
    if (port_ <= 0) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "port_in_use",
                       absl::StrCat("cannot listen for HTTP on ", endpoint.host, ":", endpoint.port),
                       "stop what listens there, or give another --http");
    }
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();  // Stop before that would be lost
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Stop() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void AddRoutes() {
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(RenderMetrics(node_), "text/plain; version=0.0.4; charset=utf-8");
    });
    server_.Get("/livez", [this](const httplib::Request&, httplib::Response& response) {
      std::string reason;
      const std::string state = node_.State(&reason);
      const bool dead = state == "halted" && reason == "io_error";
      Answer(response, dead ? kUnavailable : kOk, dead ? reason : "ok");
    });
    server_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      const absl::Status readable = node_.CheckReadable();
      Answer(response, readable.ok() ? kOk : kUnavailable, readable.ok() ? "ok" : GetErrorInfo(readable).reason);
    });
    server_.Get("/primary", [this](const httplib::Request&, httplib::Response& response) {
      const absl::Status writable = node_.CheckWritable();
      Answer(response, writable.ok() ? kOk : kUnavailable, writable.ok() ? "ok" : GetErrorInfo(writable).reason);
    });
    server_.Get("/replica", [this](const httplib::Request& request, httplib::Response& response) {
      AnswerReplica(node_, request, response);
    });
    server_.Get("/status", [this](const httplib::Request&, httplib::Response& response) {
      v1::GetStatusResponse status;
      FillStatus(node_, &status);
      response.set_content(JsonText(ProtoToJson(status), 2) + "\n", "application/json");
    });
  }

  Node& node_;
  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> StartHttpServer(const std::string& address, Node& node) {
  TOWLINE_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint("--http", address));
  auto server = std::make_unique<HttpServerImpl>(node);
  TOWLINE_RETURN_IF_ERROR(server->Start(endpoint));
  return server;
}

}  // namespace towline
