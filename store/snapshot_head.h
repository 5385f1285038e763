// The AUX fields at the head of a snapshot stream.

#ifndef TOWLINE_STORE_SNAPSHOT_HEAD_H_
#define TOWLINE_STORE_SNAPSHOT_HEAD_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "store/snapshot_codec.h"

namespace towline {

// Magic, AUX fields, SELECTDB 0 and RESIZEDB.
std::string EncodeSnapshotHead(const SnapshotMeta& meta);

// Takes one AUX field into *meta; names that it does not know are ignored. DATA_LOSS, reason snapshot_malformed;
// UNIMPLEMENTED, reason snapshot_version_unsupported.
absl::Status ReadSnapshotHeadField(absl::string_view name, absl::string_view value, SnapshotMeta* meta);

absl::Status SnapshotMalformed(absl::string_view what);

}  // namespace towline

#endif  // TOWLINE_STORE_SNAPSHOT_HEAD_H_
