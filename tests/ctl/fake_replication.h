// The part of the fake server that streams records and snapshots.

#ifndef TOWLINE_TESTS_CTL_FAKE_REPLICATION_H_
#define TOWLINE_TESTS_CTL_FAKE_REPLICATION_H_

#include <memory>

#include "tests/ctl/fake_server.h"

namespace grpc {
class Service;
}

namespace towline::testing {

// A ReplicationService that answers from `state`, which must outlive it.
std::unique_ptr<grpc::Service> NewFakeReplication(FakeState& state);

}  // namespace towline::testing

#endif  // TOWLINE_TESTS_CTL_FAKE_REPLICATION_H_
