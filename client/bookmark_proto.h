// The library's values as the API's messages.

#ifndef TOWLINE_CLIENT_BOOKMARK_PROTO_H_
#define TOWLINE_CLIENT_BOOKMARK_PROTO_H_

#include "towline/bookmark.h"
#include "towline/v1/kv_service.pb.h"
#include "towline/v1/types.pb.h"
#include "towline/write_set.h"

namespace towline {

inline v1::Position ToProto(const Bookmark& bookmark) {
  v1::Position position;
  position.set_cluster_id(bookmark.cluster_id);
  position.set_term(bookmark.term);
  position.set_term_id(bookmark.term_id);
  position.set_lsn(bookmark.lsn);
  position.set_chain(bookmark.chain);
  return position;
}

inline Bookmark FromProto(const v1::Position& position) {
  return {position.cluster_id(), position.term(), position.term_id(), position.lsn(), position.chain()};
}

inline v1::Durability ToProto(const WriteDurability& durability) {
  v1::Durability out;
  out.set_replicas(durability.replicas);
  out.set_stage(durability.applied ? v1::COMMIT_STAGE_APPLIED : v1::COMMIT_STAGE_FLUSHED);
  out.set_timeout_ms(static_cast<uint32_t>(durability.timeout.count()));
  out.set_on_timeout(durability.accept_less ? v1::ON_COMMIT_TIMEOUT_ACCEPT : v1::ON_COMMIT_TIMEOUT_FAIL);
  return out;
}

}  // namespace towline

#endif  // TOWLINE_CLIENT_BOOKMARK_PROTO_H_
