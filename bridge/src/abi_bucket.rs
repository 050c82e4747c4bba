//! The C interface to object stores. Every entry catches panics; every pointer's contract is in include/bearing_bucket.h.

use std::sync::Arc;
use std::time::Duration;

use crate::abi::{guard, OwnedText, Text};
use crate::bucket::{Bucket, Options, Upload};

#[repr(C)]
pub struct BucketOptions {
    max_retries: u32,
    retry_milliseconds: u32,
    part_bytes: u64,
    concurrency: u32,
    copy_bytes: u64,
}

#[repr(C)]
pub struct ObjectInfo {
    size: u64,
    etag: OwnedText,
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_open(
    uri: Text,
    options: *const BucketOptions,
    out: *mut *mut Arc<Bucket>,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let bucket = Bucket::open(uri.as_str("address")?, (*options).resolved())?;
        out.write(Box::into_raw(Box::new(bucket)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_free(bucket: *mut Arc<Bucket>) {
    if !bucket.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(bucket));
            Ok(())
        });
    }
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_stat(
    bucket: *const Arc<Bucket>,
    key: Text,
    out: *mut ObjectInfo,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let object = (*bucket).stat(key.as_str("key")?)?;
        out.write(ObjectInfo { size: object.size, etag: object.etag.into() });
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_list(
    bucket: *const Arc<Bucket>,
    prefix: Text,
    out: *mut OwnedText,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let objects = (*bucket).list(prefix.as_str("prefix")?)?;
        out.write(objects.iter().map(|o| format!("{}\0{}\0{}\0", o.key, o.size, o.etag)).collect::<String>().into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_read(
    bucket: *const Arc<Bucket>,
    key: Text,
    etag: Text,
    offset: u64,
    data: *mut u8,
    size: usize,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let out: &mut [u8] = match size {
            0 => &mut [],
            _ => std::slice::from_raw_parts_mut(data, size),
        };
        (*bucket).read(key.as_str("key")?, etag.as_str("etag")?, offset, out)
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_put(
    bucket: *const Arc<Bucket>,
    key: Text,
    data: Text,
    create: bool,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let key = key.as_str("key")?;
        match create {
            true => (*bucket).create(key, data.as_bytes()),
            false => (*bucket).put(key, data.as_bytes()),
        }
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_copy(
    bucket: *const Arc<Bucket>,
    from: Text,
    to: Text,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || (*bucket).copy(from.as_str("key")?, to.as_str("key")?))
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_delete(bucket: *const Arc<Bucket>, key: Text, error: *mut OwnedText) -> i32 {
    guard(error, || (*bucket).delete(key.as_str("key")?))
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_uploads(
    bucket: *const Arc<Bucket>,
    prefix: Text,
    out: *mut OwnedText,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let uploads = (*bucket).pending_uploads(prefix.as_str("prefix")?)?;
        out.write(uploads.iter().map(|u| format!("{}\0{}\0", u.key, u.id)).collect::<String>().into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bucket_abort(
    bucket: *const Arc<Bucket>,
    key: Text,
    id: Text,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || (*bucket).abort(key.as_str("key")?, id.as_str("id")?))
}

#[no_mangle]
pub unsafe extern "C" fn bearing_upload_start(
    bucket: *const Arc<Bucket>,
    key: Text,
    size: u64,
    out: *mut *mut Upload,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let upload = Upload::start(Arc::clone(&*bucket), key.as_str("key")?, size)?;
        out.write(Box::into_raw(Box::new(upload)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_upload_write(upload: *mut Upload, data: Text, error: *mut OwnedText) -> i32 {
    guard(error, || (*upload).write(data.as_bytes()))
}

#[no_mangle]
pub unsafe extern "C" fn bearing_upload_finish(upload: *mut Upload, error: *mut OwnedText) -> i32 {
    guard(error, || (*upload).finish())
}

#[no_mangle]
pub unsafe extern "C" fn bearing_upload_free(upload: *mut Upload) {
    if !upload.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(upload));
            Ok(())
        });
    }
}

impl BucketOptions {
    fn resolved(&self) -> Options {
        let mut options = Options::default();
        if self.max_retries > 0 {
            options.max_retries = self.max_retries as usize;
        }
        if self.retry_milliseconds > 0 {
            options.retry_time = Duration::from_millis(self.retry_milliseconds.into());
        }
        if self.part_bytes > 0 {
            options.part_bytes = self.part_bytes as usize;
        }
        if self.concurrency > 0 {
            options.concurrency = self.concurrency as usize;
        }
        if self.copy_bytes > 0 {
            options.copy_bytes = self.copy_bytes;
        }
        options
    }
}
