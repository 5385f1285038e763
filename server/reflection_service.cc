#include "server/reflection_service.h"

#include <algorithm>
#include <google/protobuf/descriptor.h>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include <google/protobuf/descriptor.pb.h>

#include "common/names.h"

namespace towline {
namespace {

namespace reflection = grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

// One stream: read, answer, read again. Everything happens on the queue's thread.
class InfoCall final : public BidiCall<reflection::ServerReflectionRequest, reflection::ServerReflectionResponse> {
 public:
  InfoCall(RpcQueue& queue, Asker asker, const std::vector<std::string>& services)
      : BidiCall(queue, std::move(asker)), services_(services) {}

 private:
  void OnOpen() override { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(absl::OkStatus());
      return;
    }
    reflection::ServerReflectionResponse response;
    response.set_valid_host(request_.host());
    *response.mutable_original_request() = request_;
    sent_files_.clear();
    Answer(&response);
    StartWrite(response);
  }
  void OnWriteDone(bool /*ok*/) override { StartRead(&request_); }
  void OnCancel() override {}  // a read or write is always pending, and fails
  void OnDone() override { delete this; }

  void Answer(reflection::ServerReflectionResponse* response) {
    using Request = reflection::ServerReflectionRequest;
    const DescriptorPool& pool = *DescriptorPool::generated_pool();
    switch (request_.message_request_case()) {
      case Request::kListServices:
        for (const std::string& service : services_) {
          response->mutable_list_services_response()->add_service()->set_name(service);
        }
        return;
      case Request::kFileByFilename:
        return AnswerFile(pool.FindFileByName(request_.file_by_filename()), request_.file_by_filename(), response);
      case Request::kFileContainingSymbol:
        return AnswerFile(pool.FindFileContainingSymbol(request_.file_containing_symbol()),
                          request_.file_containing_symbol(), response);
      case Request::kFileContainingExtension: {
        const auto& asked = request_.file_containing_extension();
        const auto* const type = pool.FindMessageTypeByName(asked.containing_type());
        const auto* const extension =
            type == nullptr ? nullptr : pool.FindExtensionByNumber(type, asked.extension_number());
        return AnswerFile(extension == nullptr ? nullptr : extension->file(),
                          absl::StrCat(asked.containing_type(), " extension ", asked.extension_number()), response);
      }
      case Request::kAllExtensionNumbersOfType:
        return AnswerExtensions(pool, request_.all_extension_numbers_of_type(), response);
      case Request::MESSAGE_REQUEST_NOT_SET:
        return Refuse(grpc::StatusCode::INVALID_ARGUMENT, "the request asks for nothing that this server knows",
                      response);
    }
  }

  void AnswerFile(const FileDescriptor* file, const std::string& asked,
                  reflection::ServerReflectionResponse* response) {
    if (file == nullptr) {
      return Refuse(grpc::StatusCode::NOT_FOUND, absl::StrCat("there is no \"", Printable(asked), "\""), response);
    }
    response->mutable_file_descriptor_response();
    AddFile(*file, response);
  }

  void AddFile(const FileDescriptor& file, reflection::ServerReflectionResponse* response) {
    if (!sent_files_.insert(file.name()).second) return;
    google::protobuf::FileDescriptorProto proto;
    file.CopyTo(&proto);
    response->mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
    for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), response);
  }

  static void AnswerExtensions(const DescriptorPool& pool, const std::string& type_name,
                               reflection::ServerReflectionResponse* response) {
    const auto* const type = pool.FindMessageTypeByName(type_name);
    if (type == nullptr) {
      return Refuse(grpc::StatusCode::NOT_FOUND, absl::StrCat("there is no message \"", Printable(type_name), "\""),
                    response);
    }
    std::vector<const google::protobuf::FieldDescriptor*> extensions;
    pool.FindAllExtensions(type, &extensions);
    response->mutable_all_extension_numbers_response()->set_base_type_name(type_name);
    for (const auto* extension : extensions) {
      response->mutable_all_extension_numbers_response()->add_extension_number(extension->number());
    }
  }

  static void Refuse(grpc::StatusCode code, const std::string& message,
                     reflection::ServerReflectionResponse* response) {
    response->mutable_error_response()->set_error_code(code);
    response->mutable_error_response()->set_error_message(message);
  }

  const std::vector<std::string>& services_;
  reflection::ServerReflectionRequest request_;
  std::set<std::string> sent_files_;  // in this response
};

std::vector<std::string> Ordered(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

ReflectionServiceImpl::ReflectionServiceImpl(std::vector<std::string> services)
    : services_(Ordered(std::move(services))) {}

void ReflectionServiceImpl::Serve(RpcQueue& queue) {
  ServeStream<InfoCall>(
      queue,
      [this](grpc::ServerContext* context, InfoCall::Stream* stream, RpcQueue& calls, void* tag) {
        service_.RequestServerReflectionInfo(context, stream, calls.get(), calls.get(), tag);
      },
      [this](RpcQueue& calls, InfoCall::Asker asker) { return new InfoCall(calls, std::move(asker), services_); });
}

}  // namespace towline
