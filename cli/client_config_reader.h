// The fields of the client's settings file, for those who read and write it (client_config.h).
#ifndef BEARING_CLI_CLIENT_CONFIG_READER_H_
#define BEARING_CLI_CLIENT_CONFIG_READER_H_

#include <array>
#include <string>

#include "rpc/client_security.h"

namespace bearing::cli {

inline constexpr char kConfigApiVersion[] = "bearing/v1";
inline constexpr char kConfigKind[] = "Config";

// A field of a context beside `server`.
struct ConfigTextField {
  const char* name;
  std::string rpc::ClientSecurity::*member;
  bool is_path;
};
struct ConfigFlagField {
  const char* name;
  bool rpc::ClientSecurity::*member;
};

inline std::array<ConfigTextField, 5> ConfigTextFields() {
  using rpc::ClientSecurity;
  return {{{"ca_file", &ClientSecurity::ca_file, true},
           {"cert_file", &ClientSecurity::cert_file, true},
           {"key_file", &ClientSecurity::key_file, true},
           {"token_file", &ClientSecurity::token_file, true},
           {"token", &ClientSecurity::token, false}}};
}

inline std::array<ConfigFlagField, 2> ConfigFlagFields() {
  using rpc::ClientSecurity;
  return {{{"tls", &ClientSecurity::tls}, {"insecure_plaintext_token", &ClientSecurity::allow_plaintext}}};
}

}  // namespace bearing::cli

#endif  // BEARING_CLI_CLIENT_CONFIG_READER_H_
