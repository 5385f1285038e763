#include "server/daemon.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <signal.h>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/clock.h"
#include "common/error.h"
#include "common/executor.h"
#include "common/file_system.h"
#include "common/rng.h"
#include "server/data_directory.h"
#include "server/endpoint.h"
#include "server/grpc_peers.h"
#include "server/grpc_server.h"
#include "server/grpc_upstream.h"
#include "server/http_server.h"
#include "server/log_sink.h"
#include "server/node.h"
#include "server/version.h"
#include "store/rocksdb/rocksdb_store.h"

namespace towline {
namespace {

constexpr long kPollNanos = 100'000'000;  // between looks at the fatal flag and the health

sigset_t DaemonSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

// The first fatal status, kept for the exit code.
class FatalSlot {
 public:
  void Set(const absl::Status& status) {
    MutexLock lock(&mutex_);
    if (status_.ok()) status_ = status;
  }
  absl::Status Get() {
    MutexLock lock(&mutex_);
    return status_;
  }

 private:
  Mutex mutex_;
  absl::Status status_ TOWLINE_GUARDED_BY(mutex_);
};

int Fail(Logger& logger, const absl::Status& status) {
  const ErrorInfo info = GetErrorInfo(status);
  const int code = ExitCodeFor(status);
  logger.Log(
      LogLevel::kError, "start_failed",
      {{"reason", info.reason}, {"message", info.message}, {"next_action", info.next_action}, {"exit_code", code}});
  return code;
}

// Waits for a signal (returns 0) or a fatal error (returns its exit code).
int WaitForEnd(FatalSlot& fatal, GrpcServer& grpc_server, Logger& logger) {
  const sigset_t signals = DaemonSignals();
  while (true) {
    const timespec wait = {0, kPollNanos};
    const int signal = sigtimedwait(&signals, nullptr, &wait);
    if (signal > 0) {
      logger.Log(LogLevel::kInfo, "signal", {{"signal", signal}});
      return 0;
    }
    grpc_server.UpdateHealth();
    if (const absl::Status status = fatal.Get(); !status.ok()) return ExitCodeFor(status);
  }
}

std::string WithPort(const std::string& address, int port) {
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

void BlockDaemonSignals() {
  const sigset_t signals = DaemonSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int RunDaemon(const NodeConfig& config) {
  const std::unique_ptr<Logger> logger = NewLogSink(config.log_level, config.log_format, config.node_id);
  logger->Log(LogLevel::kInfo, "starting", {{"version", kVersion}, {"data_dir", config.data_dir}});
  if (config.insecure) {
    logger->Log(LogLevel::kWarning, "insecure", {{"message", "no TLS and no authentication beyond loopback"}});
  }
  const std::unique_ptr<Executor> executor = NewThreadExecutor();
  RocksDbOptions store_options;
  store_options.block_cache_bytes = config.store_cache_bytes;
  const std::unique_ptr<StoreFactory> stores = NewRocksDbStoreFactory(store_options);
  FatalSlot fatal;
  const std::unique_ptr<PeerCalls> peers = NewGrpcPeers();
  const NodeDependencies deps{*PosixFileSystem(),
                              *SystemClock(),
                              *SystemRng(),
                              *executor,
                              *logger,
                              *stores,
                              NewGrpcUpstream,
                              AskForStart,
                              *peers,
                              [&fatal](absl::Status status) { fatal.Set(status); }};

  auto opened = Node::Open(config, deps);
  if (!opened.ok()) return Fail(*logger, opened.status());
  const std::unique_ptr<Node> node = *std::move(opened);

  // The ports are taken before anything runs: a node that cannot be reached should not attach anywhere.
  auto grpc_server = StartGrpcServer(config.listen, *node);
  if (!grpc_server.ok()) return Fail(*logger, grpc_server.status());
  if (config.advertise.empty()) node->SetAdvertisedAddress(WithPort(config.listen, (*grpc_server)->port()));
  std::unique_ptr<HttpServer> http_server;
  if (!config.http.empty()) {
    auto started = StartHttpServer(config.http, *node);
    if (!started.ok()) return Fail(*logger, started.status());
    http_server = *std::move(started);
  }
  if (const absl::Status started = node->Start(); !started.ok()) return Fail(*logger, started);
  logger->Log(LogLevel::kInfo, "listening",
              {{"grpc", WithPort(config.listen, (*grpc_server)->port())},
               {"http", http_server ? WithPort(config.http, http_server->port()) : "off"}});

  const int code = WaitForEnd(fatal, **grpc_server, *logger);
  if (code != 0) {
    // A failed write or sync: nothing in memory may reach the disk any more.
    (*grpc_server)->UpdateHealth();
    logger->Log(LogLevel::kError, "halting", {{"exit_code", code}, {"status", fatal.Get().ToString()}});
    std::_Exit(code);
  }
  node->Stop();
  (*grpc_server)->Shutdown();
  if (http_server) http_server->Stop();
  return 0;
}

}  // namespace towline
