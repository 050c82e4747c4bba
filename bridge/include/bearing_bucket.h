/* The C interface of the Rust library to object stores: S3, Google Cloud Storage, Azure Blob Storage.
 *
 * The rules of bearing_bridge.h hold here too. Calls block. A bucket may be used from many threads at once; an upload from one
 * at a time. Errors are one line naming operation, address and HTTP status, and hold no credentials.
 */
#ifndef BEARING_BRIDGE_INCLUDE_BEARING_BUCKET_H_
#define BEARING_BRIDGE_INCLUDE_BEARING_BUCKET_H_

#include "bridge/include/bearing_bridge.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bearing_bucket bearing_bucket;
typedef struct bearing_upload bearing_upload;

/* Zero means the default. */
typedef struct bearing_bucket_options {
  uint32_t max_retries;        /* Of one request. */
  uint32_t retry_milliseconds; /* After this long, a request is not tried again. */
  uint64_t part_bytes;         /* Of one request of a large transfer; at least 5 MiB for uploads to S3. */
  uint32_t concurrency;        /* Requests of one transfer under way at the same time. */
  uint64_t copy_bytes;         /* Above this, S3 copies in parts of this size. */
} bearing_bucket_options;

typedef struct bearing_object_info {
  uint64_t size;
  bearing_owned_text etag;
} bearing_object_info;

/* `uri` is scheme://bucket. Settings and credentials come from the environment. No request is made. */
int32_t bearing_bucket_open(bearing_text uri, const bearing_bucket_options* options, bearing_bucket** out,
                            bearing_owned_text* error);

/* Null is allowed. Uploads keep what they need of it. */
void bearing_bucket_free(bearing_bucket* bucket);

int32_t bearing_bucket_stat(const bearing_bucket* bucket, bearing_text key, bearing_object_info* out,
                            bearing_owned_text* error);

/* All objects below `prefix` + "/": for each key, size and etag, each ended by a NUL. */
int32_t bearing_bucket_list(const bearing_bucket* bucket, bearing_text prefix, bearing_owned_text* out,
                            bearing_owned_text* error);

/* Fills `data` from `offset`, by parallel requests. Unless `etag` is empty, the object must still have it. */
int32_t bearing_bucket_read(const bearing_bucket* bucket, bearing_text key, bearing_text etag, uint64_t offset, char* data,
                            size_t size, bearing_owned_text* error);

/* `create`: BEARING_ALREADY_EXISTS when there is an object with other bytes. */
int32_t bearing_bucket_put(const bearing_bucket* bucket, bearing_text key, bearing_text data, bool create,
                           bearing_owned_text* error);

int32_t bearing_bucket_copy(const bearing_bucket* bucket, bearing_text from, bearing_text to, bearing_owned_text* error);

/* No object is no error. */
int32_t bearing_bucket_delete(const bearing_bucket* bucket, bearing_text key, bearing_owned_text* error);

/* Unfinished uploads below `prefix` + "/": for each key and id, each ended by a NUL. */
int32_t bearing_bucket_uploads(const bearing_bucket* bucket, bearing_text prefix, bearing_owned_text* out,
                               bearing_owned_text* error);
int32_t bearing_bucket_abort(const bearing_bucket* bucket, bearing_text key, bearing_text id, bearing_owned_text* error);

/* `size`: of the whole, 0 if unknown. The object appears when the upload is finished. */
int32_t bearing_upload_start(const bearing_bucket* bucket, bearing_text key, uint64_t size, bearing_upload** out,
                             bearing_owned_text* error);

/* Copies the bytes; waits while as many parts as allowed are under way. */
int32_t bearing_upload_write(bearing_upload* upload, bearing_text data, bearing_owned_text* error);
int32_t bearing_upload_finish(bearing_upload* upload, bearing_owned_text* error);

/* Null is allowed. Aborts an upload that is not finished. */
void bearing_upload_free(bearing_upload* upload);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* BEARING_BRIDGE_INCLUDE_BEARING_BUCKET_H_ */
