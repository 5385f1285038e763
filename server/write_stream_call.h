// One WriteStream call: messages in, cumulative answers out.

#ifndef TOWLINE_SERVER_WRITE_STREAM_CALL_H_
#define TOWLINE_SERVER_WRITE_STREAM_CALL_H_

#include "server/node.h"
#include "server/rpc_call.h"
#include "towline/v1/kv_service.grpc.pb.h"

namespace towline {

// Before the queue starts. Whoever serves it kicks the sequencer at the end of each round.
void ServeWriteStream(RpcQueue& queue, v1::KvService::AsyncService& service, Node& node);

// Position of an outcome; completes that of a duplicate, of which the sequencer knows only the LSN.
void FillOutcomePosition(Node& node, const WriteOutcome& outcome, v1::Position* out);

}  // namespace towline

#endif  // TOWLINE_SERVER_WRITE_STREAM_CALL_H_
