#include "worker/calibrate/disk_rates.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "sharding/posix_file.h"
#include "sharding/status_macros.h"

namespace bearing::worker {
namespace {

constexpr int64_t kReadBytes = int64_t{64} << 20;
constexpr int64_t kWriteBytes = int64_t{32} << 20;
constexpr int64_t kPage = 4096;

// Share of the pages of [offset, offset + size) that are in the page cache.
double CachedShare(const sharding::FileDescriptor& file, int64_t offset, int64_t size) {
  void* const map = mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, file.get(), offset);
  if (map == MAP_FAILED) return 0;
  std::vector<unsigned char> pages(static_cast<size_t>((size + kPage - 1) / kPage));
  const bool known = mincore(map, static_cast<size_t>(size), pages.data()) == 0;
  munmap(map, static_cast<size_t>(size));
  if (!known) return 0;
  const auto cached = std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<double>(cached) / static_cast<double>(pages.size());
}

absl::StatusOr<double> TimeRead(const sharding::FileDescriptor& file, int64_t offset, std::vector<char>& buffer,
                                const std::string& path) {
  const auto start = std::chrono::steady_clock::now();
  BEARING_RETURN_IF_ERROR(sharding::ReadAt(file, offset, absl::MakeSpan(buffer), path));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(buffer.size()) / std::max(took.count(), 1e-9);
}

}  // namespace

absl::StatusOr<ReadRate> MeasureRead(const std::string& path, int part, int parts) {
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::OpenForReading(path));
  BEARING_ASSIGN_OR_RETURN(const int64_t size, sharding::FileSize(file, path));
  // Two regions a rank, whole pages.
  const int64_t region = std::min(kReadBytes, size / (2 * parts)) / kPage * kPage;
  if (region == 0) return ReadRate{};
  const int64_t first = 2 * part * region;
  std::vector<char> buffer(static_cast<size_t>(region), 1);  // Written to: page faults are not the disk's.
  ReadRate rate;
  rate.cached_share = CachedShare(file, first, region);
  BEARING_ASSIGN_OR_RETURN(rate.bytes_per_s, TimeRead(file, first, buffer, path));
  const int64_t second = first + region;
  posix_fadvise(file.get(), second, region, POSIX_FADV_DONTNEED);
  if (CachedShare(file, second, region) > 0.05) return rate;
  BEARING_ASSIGN_OR_RETURN(rate.cold_bytes_per_s, TimeRead(file, second, buffer, path));
  return rate;
}

absl::StatusOr<double> MeasureWrite(const std::string& folder, int part) {
  const std::string path = absl::StrCat(folder, "/.bearing-calibrate-", getpid(), "-", part);
  BEARING_ASSIGN_OR_RETURN(const sharding::FileDescriptor file, sharding::CreateNewFile(path));
  const absl::Cleanup remove = [&path] { unlink(path.c_str()); };
  const std::vector<char> bytes(static_cast<size_t>(kWriteBytes), 1);
  const auto start = std::chrono::steady_clock::now();
  BEARING_RETURN_IF_ERROR(sharding::WriteAt(file, 0, bytes, path));
  BEARING_RETURN_IF_ERROR(sharding::SyncFile(file, path));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(kWriteBytes) / took.count();
}

}  // namespace bearing::worker
