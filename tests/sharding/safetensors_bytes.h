// Bytes of safetensors files, sound or not, built by hand.
#ifndef BEARING_TESTS_SHARDING_SAFETENSORS_BYTES_H_
#define BEARING_TESTS_SHARDING_SAFETENSORS_BYTES_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace bearing::testing {

inline std::string LengthField(uint64_t length) {
  std::string field;
  for (int i = 0; i < 8; ++i) field.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return field;
}

// A file with this header and `data_bytes` bytes of data.
inline std::string FileOf(std::string_view header, size_t data_bytes) {
  return LengthField(header.size()) + std::string(header) + std::string(data_bytes, 'x');
}

}  // namespace bearing::testing

#endif  // BEARING_TESTS_SHARDING_SAFETENSORS_BYTES_H_
