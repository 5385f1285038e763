// Puts the right checksums into bytes that were changed, in place. What else is wrong with the bytes stays wrong.
//
// Offsets come from docs/formats/, not from the code under test.

#ifndef TOWLINE_TESTS_FUZZ_CHECKSUMS_H_
#define TOWLINE_TESTS_FUZZ_CHECKSUMS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace towline::fuzz {

// Payload CRCs of shipped parts that stand back to back, as far as their lengths lead.
void FixShippedParts(absl::Span<char> bytes);

// Payload and header CRC of the frame at the start of `bytes`; of a payload that is cut off only the header's.
void FixFrame(absl::Span<char> bytes, uint64_t salt);

// All frames from the start of `bytes` on, as far as their lengths lead. With `relink` each one also gets the chain of
// the one in front of it, the first one `chain`.
void FixFrames(absl::Span<char> bytes, uint64_t salt, bool relink, uint64_t chain);

// The CRC at the end of a header or footer sector of a segment.
void FixSector(absl::Span<char> sector);

// Header, frames and, if the file has more than its header, footer of a segment.
void FixSegment(absl::Span<char> file, bool relink);

// Both CRCs of an index file.
void FixIndex(absl::Span<char> file);

// Length and both CRCs of one copy of a two-copy file, whose payload goes to the end of the bytes unless its length
// says that it is shorter.
void FixTwoCopy(absl::Span<char> copy);

// The CRC-64 at the end of an RDB stream.
void FixRdb(absl::Span<char> stream);

}  // namespace towline::fuzz

#endif  // TOWLINE_TESTS_FUZZ_CHECKSUMS_H_
