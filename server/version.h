// Version of the server, as --version, status and metrics show it.

#ifndef TOWLINE_SERVER_VERSION_H_
#define TOWLINE_SERVER_VERSION_H_

namespace towline {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace towline

#endif  // TOWLINE_SERVER_VERSION_H_
