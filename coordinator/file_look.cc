#include "coordinator/file_look.h"

#include <sys/stat.h>

#include "absl/strings/str_cat.h"

namespace bearing::coordinator {

std::string LookOf(absl::Span<const std::string> paths) {
  std::string look;
  for (const std::string& path : paths) {
    struct stat info = {};
    if (path.empty() || stat(path.c_str(), &info) != 0) {
      absl::StrAppend(&look, "-;");
      continue;
    }
    absl::StrAppend(&look, info.st_dev, ":", info.st_ino, ":", info.st_size, ":", info.st_mtim.tv_sec, ".",
                    info.st_mtim.tv_nsec, ":", info.st_ctim.tv_sec, ".", info.st_ctim.tv_nsec, ";");
  }
  return look;
}

}  // namespace bearing::coordinator
