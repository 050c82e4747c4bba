// Which hosts are this machine.
#ifndef BEARING_RPC_LOOPBACK_H_
#define BEARING_RPC_LOOPBACK_H_

#include <string>

namespace bearing::rpc {

// 127.0.0.0/8, ::1 (without brackets) and the name localhost. Stateless.
bool IsLoopback(const std::string& host);

}  // namespace bearing::rpc

#endif  // BEARING_RPC_LOOPBACK_H_
