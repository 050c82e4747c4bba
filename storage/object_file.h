// An object of a store as a file that is read at any offset.
#ifndef BEARING_STORAGE_OBJECT_FILE_H_
#define BEARING_STORAGE_OBJECT_FILE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "sharding/random_access_file.h"
#include "storage/object_store.h"

namespace bearing::storage {

// Looks the object up and reads its first bytes ahead: that is where headers are. Later reads fail with FailedPrecondition when
// the object is another one by then. NotFound.
absl::StatusOr<std::unique_ptr<sharding::RandomAccessFile>> OpenObject(std::shared_ptr<ObjectStore> store, std::string key);

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_OBJECT_FILE_H_
