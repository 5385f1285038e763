#include "ctl/bench_requests.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

#include "common/check.h"
#include "towline/v1/admin_service.pb.h"
#include "towline/v1/kv_service.pb.h"

namespace towline::ctl {
namespace {

constexpr absl::string_view kPrefix = "bench-";
constexpr size_t kDigits = kBenchKeySize - kPrefix.size();

void FillPut(size_t value_size, v1::WriteRequest* request) {
  v1::Put* put = request->add_operations()->mutable_put();
  put->set_key(BenchKey(0));
  put->set_value(BenchValue(value_size));
}

// Values are random, so the key's text is searched for where keys stand: behind the offset of the one before, and
// not inside a value.
RequestTemplate Locate(std::string bytes, size_t keys, size_t value_size) {
  RequestTemplate result;
  result.bytes = std::move(bytes);
  size_t offset = 0;
  for (size_t i = 0; i < keys; ++i) {
    offset = result.bytes.find(BenchKey(0), offset);
    TOWLINE_CHECK(offset != std::string::npos);
    result.digits.push_back(offset + kPrefix.size());
    offset += kBenchKeySize + value_size;
  }
  return result;
}

}  // namespace

std::string BenchValue(size_t size) {
  KeyChoice random(0x9e3779b97f4a7c15u, 256);
  std::string value(size, '\0');
  for (char& c : value) c = static_cast<char>(random.Next());
  return value;
}

std::string BenchKey(uint64_t number) {
  std::string key(kPrefix);
  key.resize(kBenchKeySize);
  PutDigits(key.data() + kPrefix.size(), number);
  return key;
}

void PutDigits(char* to, uint64_t number) {
  for (size_t i = kDigits; i > 0; --i) {
    to[i - 1] = static_cast<char>('0' + number % 10);
    number /= 10;
  }
}

RequestTemplate WriteTemplate(size_t value_size, const std::optional<v1::Durability>& durability) {
  v1::WriteRequest request;
  if (durability.has_value()) *request.mutable_durability() = *durability;
  FillPut(value_size, &request);
  return Locate(request.SerializeAsString(), 1, value_size);
}

RequestTemplate GetTemplate() {
  v1::GetRequest request;
  request.set_key(BenchKey(0));
  return Locate(request.SerializeAsString(), 1, 0);
}

RequestTemplate PingTemplate(size_t payload_size) {
  v1::PingRequest request;
  request.set_payload(BenchValue(payload_size));
  return {request.SerializeAsString(), {}};
}

RequestTemplate StreamTemplate(size_t value_size, size_t batch, const std::optional<v1::Durability>& durability) {
  v1::WriteStreamRequest request;
  if (durability.has_value()) *request.mutable_durability() = *durability;
  v1::WriteRequest element;
  FillPut(value_size, &element);
  for (size_t i = 0; i < batch; ++i) *request.add_elements() = element;
  return Locate(request.SerializeAsString(), batch, value_size);
}

std::string SequenceField(uint64_t sequence) {
  std::string field;
  google::protobuf::io::StringOutputStream stream(&field);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.WriteTag(v1::WriteStreamRequest::kFirstSequenceFieldNumber << 3);  // wire type varint
  coded.WriteVarint64(sequence);
  coded.Trim();
  return field;
}

}  // namespace towline::ctl
