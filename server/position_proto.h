// Positions and histories as protobuf.

#ifndef TOWLINE_SERVER_POSITION_PROTO_H_
#define TOWLINE_SERVER_POSITION_PROTO_H_

#include "common/types.h"
#include "towline/v1/types.pb.h"

namespace towline {

inline void FillPosition(const ClusterId& cluster_id, const Position& position, v1::Position* out) {
  out->set_cluster_id(cluster_id);
  out->set_term(position.term);
  out->set_term_id(position.term_id);
  out->set_lsn(position.lsn);
  out->set_chain(position.chain);
}

inline void FillHistoryEntry(const HistoryEntry& entry, v1::HistoryEntry* out) {
  out->set_term(entry.term);
  out->set_start_lsn(entry.start_lsn);
  out->set_term_id(entry.term_id);
}

}  // namespace towline

#endif  // TOWLINE_SERVER_POSITION_PROTO_H_
