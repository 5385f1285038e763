// The beginning of a log as a log of its own, by second names of its files where that is possible.

#ifndef TOWLINE_WAL_LOG_CUT_H_
#define TOWLINE_WAL_LOG_CUT_H_

#include <string>

#include "absl/status/status.h"

#include "common/file_system.h"
#include "common/types.h"

namespace towline::wal {

// Makes in the directory `to`, which must exist and be empty, the log of the directory `from` from the segment that
// holds `first` up to record `last`, durably. Segments that end at or below `last`, and their indexes, get a second
// name; the one in which `last` lies becomes a copy that ends there. Nobody may append to `from`, nor remove what holds
// `first` or more of it, until this returns. OpenSpool finds the result as it would find the log after a crash behind
// record `last`.
//
// NOT_FOUND, reason wal_removed: `first` is not there. DATA_LOSS, reason wal_damaged: the segment that has to be copied
// cannot be read up to `last`. RESOURCE_EXHAUSTED: the disk is full; what was made stays. Others for I/O.
absl::Status CutLog(FileSystem& fs, const std::string& from, const std::string& to, Lsn first, Lsn last);

}  // namespace towline::wal

#endif  // TOWLINE_WAL_LOG_CUT_H_
