// The file system as an object store: files are written beside their place, synced, then renamed (or linked, where the name
// must be free), and the folder is synced.
//
// Keys are absolute paths without the first slash. Copies share the file's blocks by a hard link where the file system can,
// which is safe because objects are never changed in place. Temporary files are named .bearing-upload-*; lists leave them out.
// The etag is made of inode, size and time of change.
#ifndef BEARING_STORAGE_LOCAL_STORE_H_
#define BEARING_STORAGE_LOCAL_STORE_H_

#include <memory>

#include "storage/object_store.h"

namespace bearing::storage {

std::unique_ptr<ObjectStore> MakeLocalStore();

}  // namespace bearing::storage

#endif  // BEARING_STORAGE_LOCAL_STORE_H_
