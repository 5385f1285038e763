// hello ENDPOINT[,ENDPOINT...]: writes a greeting and reads it back. Without arguments: the version of the library.

#include <iostream>
#include <sstream>
#include <string>

#include "towline/client.h"
#include "towline/client_error.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cout << "towline client " << towline::ClientVersion() << "\n";
    return 0;
  }
  towline::ClientOptions options;
  std::istringstream endpoints(argv[1]);
  for (std::string endpoint; std::getline(endpoints, endpoint, ',');) options.endpoints.push_back(endpoint);

  auto client = towline::Client::Make(options);
  if (!client.ok()) {
    std::cerr << client.status().message() << "\n";
    return 1;
  }
  const auto written = (*client)->Put("greeting", "hello");
  if (!written.ok()) {
    std::cerr << towline::DetailsOf(written.status()).message << "\n";
    return 1;
  }
  const auto read = (*client)->Get("greeting");
  if (!read.ok() || !read->entry.has_value()) {
    std::cerr << "cannot read what was written\n";
    return 1;
  }
  std::cout << read->entry->value << " from " << read->endpoint << " at " << towline::ToToken(read->position) << "\n";
  return 0;
}
