#include "tests/replica/file_stream_maker.h"

#include <algorithm>

#include "common/checksum.h"

namespace towline::test {

std::vector<v1::FetchSnapshotResponse> MakeFileStream(const Files& files, const v1::FetchSnapshotRequest& request,
                                                      size_t chunk_bytes, uint64_t snapshot_id) {
  std::map<std::string, size_t> held;
  for (const v1::SnapshotFile& file : request.held()) {
    const auto found = files.find(file.name());
    if (found == files.end() || file.held_bytes() > found->second.size()) continue;
    const std::string prefix = found->second.substr(0, file.held_bytes());
    if (Crc32c(prefix) == file.held_crc32c()) held[file.name()] = prefix.size();
  }
  std::vector<v1::FetchSnapshotResponse> stream(1);
  uint64_t bytes = 0;
  stream[0].mutable_header()->set_snapshot_id(snapshot_id);
  uint32_t index = 0;
  for (const auto& [name, content] : files) {
    v1::SnapshotFile* file = stream[0].mutable_header()->add_files();
    file->set_name(name);
    file->set_size(content.size());
    file->set_held_bytes(held[name]);
    bytes += content.size();
    for (size_t offset = held[name]; offset < content.size(); offset += chunk_bytes) {
      v1::SnapshotFileChunk* chunk = stream.emplace_back().mutable_file_chunk();
      chunk->set_snapshot_id(snapshot_id);
      chunk->set_file(index);
      chunk->set_offset(offset);
      chunk->set_data(content.substr(offset, chunk_bytes));
      chunk->set_crc32c(Crc32c(content.substr(0, offset + chunk_bytes)));
    }
    ++index;
  }
  stream[0].mutable_header()->set_estimated_bytes(bytes);
  v1::SnapshotEnd* end = stream.emplace_back().mutable_end();
  end->set_bytes(bytes);
  end->set_chunks(stream.size() - 2);
  return stream;
}

}  // namespace towline::test
