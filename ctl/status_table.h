// The readable forms of what a node says about itself.

#ifndef TOWLINE_CTL_STATUS_TABLE_H_
#define TOWLINE_CTL_STATUS_TABLE_H_

#include <ostream>

#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"

#include "towline/v1/admin_service.pb.h"

namespace towline::ctl {

// How far a load is: "loading, 1200 keys, 3 MiB of about 9 MiB (33 %), 12 MiB/s, ETA 500 ms, 0 resumes".
std::string BootstrapText(const v1::BootstrapStatus& bootstrap);

void PrintStatusTable(std::ostream& out, const v1::GetStatusResponse& status);
void PrintDisk(std::ostream& out, const v1::DiskStatus& disk);
void PrintHistoryTable(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::HistoryEntry>& history,
                       absl::string_view indent = "");
void PrintMembersTable(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::Member>& members,
                       absl::string_view indent = "");
void PrintSlotsTable(std::ostream& out, const google::protobuf::RepeatedPtrField<v1::Slot>& slots,
                     absl::string_view indent = "");

}  // namespace towline::ctl

#endif  // TOWLINE_CTL_STATUS_TABLE_H_
