// writer ENDPOINTS unary|batch SECONDS: logs messages "0", "1", ... on topic "writer" until the time is over, and
// prints their number as it goes. Whatever happens to the nodes, the log then has each of them once.

#include <atomic>
#include <chrono>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "towline/client.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kReportEvery = 50;

// Returns how many were written; -1 after an error.
int64_t WriteOneByOne(towline::Client& client, Clock::time_point end) {
  int64_t count = 0;
  for (; Clock::now() < end; ++count) {
    towline::WriteSet writes;
    writes.Message("writer", std::to_string(count));
    if (const auto written = client.Write(std::move(writes)); !written.ok()) {
      std::cerr << written.status() << "\n";
      return -1;
    }
    if (count % kReportEvery == 0) std::cout << count << std::endl;
  }
  return count;
}

int64_t WriteInBatches(towline::Client& client, Clock::time_point end) {
  std::atomic<int64_t> failed{0};
  towline::BatcherOptions options;
  options.window_bytes = 16 << 10;
  options.retry_for = std::chrono::seconds(60);
  const auto batcher = client.NewBatcher(options, [&failed](const towline::RecordAnswer& answer) {
    if (!answer.status.ok()) {
      ++failed;
      std::cerr << answer.number << ": " << answer.status << "\n";
    }
    if (answer.number % 1000 == 1) std::cout << answer.number << std::endl;
  });
  int64_t count = 0;
  for (; Clock::now() < end; ++count) {
    towline::WriteSet writes;
    writes.Message("writer", std::to_string(count));
    if (const auto added = batcher->Add(std::move(writes)); !added.ok()) {
      std::cerr << added.status() << "\n";
      return -1;
    }
  }
  const absl::Status closed = batcher->Close();
  if (!closed.ok()) std::cerr << closed << "\n";
  return closed.ok() && failed == 0 ? count : -1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  towline::ClientOptions options;
  std::istringstream endpoints(argv[1]);
  for (std::string endpoint; std::getline(endpoints, endpoint, ',');) options.endpoints.push_back(endpoint);
  options.timeout = std::chrono::seconds(60);
  const auto client = towline::Client::Make(options);
  if (!client.ok()) return 2;

  const Clock::time_point end = Clock::now() + std::chrono::seconds(std::stoi(argv[3]));
  const bool unary = argv[2] == std::string("unary");
  const int64_t count = unary ? WriteOneByOne(**client, end) : WriteInBatches(**client, end);
  if (count < 0) return 1;
  std::cout << "wrote " << count << std::endl;
  return 0;
}
