// session PRIMARY REPLICA COUNT: one process writes on the primary, another one reads on the replica what was written,
// with nothing but a token between them.

#include <iostream>
#include <memory>
#include <string>

#include "towline/client.h"

namespace {

std::unique_ptr<towline::Client> Connect(const std::string& endpoint, towline::ReadPreference preference) {
  towline::ClientOptions options;
  options.endpoints = {endpoint};
  options.read_preference = preference;
  options.bookmark_wait = std::chrono::seconds(20);  // rather wait than ask the primary
  auto client = towline::Client::Make(options);
  return client.ok() ? *std::move(client) : nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto writer = Connect(argv[1], towline::ReadPreference::kPrimary);
  const auto reader = Connect(argv[2], towline::ReadPreference::kLocalFirst);
  if (writer == nullptr || reader == nullptr) return 2;

  for (int i = 0; i < std::stoi(argv[3]); ++i) {
    const std::string key = "key-" + std::to_string(i);
    if (const auto written = writer->Put(key, std::to_string(i)); !written.ok()) {
      std::cerr << written.status() << "\n";
      return 1;
    }
    const std::string token = towline::ToToken(writer->session());  // travels with the answer to a request, say

    const auto bookmark = towline::ParseToken(token);
    if (!bookmark.ok()) return 1;
    reader->JoinSession(*bookmark);
    const auto read = reader->Get(key);
    if (!read.ok() || !read->entry.has_value() || read->endpoint != argv[2]) {
      std::cerr << key << " is missing: " << read.status() << "\n";
      return 1;
    }
  }
  std::cout << "read every write\n";
  return 0;
}
