// Random bits that are a function of a counter and a key, with no state: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011,
// "Parallel random numbers: as easy as 1, 2, 3"). Whoever asks for the numbers of one counter gets the same ones, in any order
// and on any rank. Tested with the authors' known answers. Pure functions; thread-safe.
#ifndef BEARING_WORKER_STEER_PHILOX_H_
#define BEARING_WORKER_STEER_PHILOX_H_

#include <array>
#include <cstdint>

namespace bearing::steer {

inline constexpr uint32_t kPhiloxMultipliers[2] = {0xD2511F53, 0xCD9E8D57};
inline constexpr uint32_t kPhiloxKeySteps[2] = {0x9E3779B9, 0xBB67AE85};
inline constexpr int kPhiloxRounds = 10;

// In place: `c` holds the four words of the counter, then those of the result.
inline void Philox(uint32_t& c0, uint32_t& c1, uint32_t& c2, uint32_t& c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = uint64_t{kPhiloxMultipliers[0]} * c0;
    const uint64_t p1 = uint64_t{kPhiloxMultipliers[1]} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += kPhiloxKeySteps[0];
    k1 += kPhiloxKeySteps[1];
  }
}

inline std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, const std::array<uint32_t, 2>& key) {
  Philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
  return counter;
}

}  // namespace bearing::steer

#endif  // BEARING_WORKER_STEER_PHILOX_H_
