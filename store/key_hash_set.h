// The hashes of keys that were seen, to find duplicates among many keys in little memory.

#ifndef TOWLINE_STORE_KEY_HASH_SET_H_
#define TOWLINE_STORE_KEY_HASH_SET_H_

#include <cstddef>
#include <vector>

#include "common/checksum.h"

namespace towline {

// A set of 128-bit hashes: 21 to 64 bytes of memory for each. Two different keys have one hash with a probability of
// n^2 / 2^129.
// Threads: external synchronization.
class KeyHashSet {
 public:
  // False if it is in the set already.
  bool Add(Sum128 hash) {
    if (hash == Sum128{}) hash.low = 1;  // zero marks a free place
    if (4 * (size_ + 1) > 3 * places_.size()) Grow();
    Sum128& place = Find(places_, hash);
    if (place == hash) return false;
    place = hash;
    ++size_;
    return true;
  }

  size_t size() const { return size_; }

 private:
  static constexpr size_t kPlacesMin = 1024;

  // The place of `hash`, or the free one where it belongs. The number of places is a power of two.
  static Sum128& Find(std::vector<Sum128>& places, const Sum128& hash) {
    const size_t mask = places.size() - 1;
    size_t at = static_cast<size_t>(hash.high) & mask;
    while (!(places[at] == Sum128{}) && !(places[at] == hash)) at = (at + 1) & mask;
    return places[at];
  }

  void Grow() {
    std::vector<Sum128> bigger(places_.empty() ? kPlacesMin : 2 * places_.size());
    for (const Sum128& hash : places_) {
      if (!(hash == Sum128{})) Find(bigger, hash) = hash;
    }
    places_.swap(bigger);
  }

  std::vector<Sum128> places_;
  size_t size_ = 0;
};

}  // namespace towline

#endif  // TOWLINE_STORE_KEY_HASH_SET_H_
