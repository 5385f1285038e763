// The batcher of towline::Client: a write stream that is opened again, at the primary of the moment, whenever it ends.

#ifndef TOWLINE_CLIENT_STREAM_BATCHER_H_
#define TOWLINE_CLIENT_STREAM_BATCHER_H_

#include <memory>

#include "client/cluster_client.h"
#include "towline/write_batcher.h"

namespace towline::client {

// Must not outlive `cluster`.
std::unique_ptr<WriteBatcher> NewStreamBatcher(ClusterClient& cluster, const BatcherOptions& options,
                                               OnRecordAnswer on_answer);

}  // namespace towline::client

#endif  // TOWLINE_CLIENT_STREAM_BATCHER_H_
