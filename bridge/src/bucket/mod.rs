//! One bucket of S3, Google Cloud Storage or Azure Blob Storage, with calls that block.
//!
//! Settings come from the environment variables that each cloud's own tools read, credentials from its usual chain; neither is
//! ever given in an address. Requests that fail are retried with growing, random pauses for as long as `Options` says.

mod connect;
mod explain;
mod gcs_requests;
mod persist;
mod read;
mod requests;
mod runtime;
mod s3_profile;
mod s3_requests;
mod secrets;
mod upload;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::failure::{Code, Failure, Result};
use gcs_requests::GcsRequests;
use s3_requests::S3Requests;
use secrets::Secrets;

pub use upload::Upload;

/// Zero means the default.
#[derive(Clone)]
pub struct Options {
    pub max_retries: usize,
    pub retry_time: Duration,
    /// Bytes of one request of a large transfer.
    pub part_bytes: usize,
    /// Requests of one transfer that are under way at the same time.
    pub concurrency: usize,
    /// Objects above this size are copied in parts of this size: one request that copies more may outlast its time limit.
    pub copy_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_retries: 10,
            retry_time: Duration::from_secs(180),
            part_bytes: 8 << 20,
            concurrency: 8,
            copy_bytes: 256 << 20,
        }
    }
}

/// Requests that the store library does not have, where a store has more than it.
enum Extra {
    S3(S3Requests),
    Gcs(GcsRequests),
    None,
}

pub struct Bucket {
    /// "s3://name", for messages.
    uri: String,
    options: Options,
    store: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    extra: Extra,
    secrets: Secrets,
}

pub struct Object {
    pub key: String,
    pub size: u64,
    pub etag: String,
}

pub struct PendingUpload {
    pub key: String,
    pub id: String,
}

impl Bucket {
    /// `uri` is scheme://bucket.
    pub fn open(uri: &str, options: Options) -> Result<Arc<Bucket>> {
        connect::connect(uri, options).map(Arc::new)
    }

    pub fn stat(&self, key: &str) -> Result<Object> {
        let path = self.path(key)?;
        runtime::run(self.persist(|| self.store.head(&path)))?
            .map(|meta| Object { key: key.to_string(), size: meta.size, etag: meta.e_tag.unwrap_or_default() })
            .map_err(|error| self.explain("cannot look up object", key, &error))
    }

    /// All objects whose key starts with `prefix` and a slash; of the whole bucket when it is empty.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let path = self.path(prefix)?;
        let all = || {
            self.store
                .list(Some(&path))
                .map_ok(|meta| Object {
                    key: meta.location.to_string(),
                    size: meta.size,
                    etag: meta.e_tag.unwrap_or_default(),
                })
                .try_collect::<Vec<Object>>()
        };
        runtime::run(self.persist(all))?.map_err(|error| self.explain("cannot list objects", prefix, &error))
    }

    /// Replaces what is there.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(key)?;
        let payload = PutPayload::from(bytes.to_vec());
        runtime::run(self.persist(|| self.store.put(&path, payload.clone())))?
            .map(|_| ())
            .map_err(|error| self.explain("cannot write object", key, &error))
    }

    /// Fails with AlreadyExists when there is an object with other bytes. One that holds these bytes counts as created: a retried
    /// request cannot tell whether its first try or another writer made it.
    pub fn create(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(key)?;
        let payload = PutPayload::from(bytes.to_vec());
        let options = PutOptions::from(PutMode::Create);
        let mut tries = 0;
        loop {
            let error =
                match runtime::run(self.persist(|| self.store.put_opts(&path, payload.clone(), options.clone())))? {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                };
            if !matches!(error, Error::AlreadyExists { .. }) {
                return Err(self.explain("cannot create object", key, &error));
            }
            match self.holds(key, bytes) {
                Ok(true) => return Ok(()),
                // A conflict with a request that then failed, or with a deletion: nobody has won yet.
                Err(failure) if failure.code == Code::NotFound && tries < self.options.max_retries => tries += 1,
                Ok(false) | Err(_) => return Err(self.explain("cannot create object", key, &error)),
            }
        }
    }

    fn holds(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let object = self.stat(key)?;
        if object.size != bytes.len() as u64 {
            return Ok(false);
        }
        let mut stored = vec![0; bytes.len()];
        self.read(key, &object.etag, 0, &mut stored)?;
        Ok(stored == bytes)
    }

    /// Inside the store; replaces what is at `to`.
    pub fn copy(&self, from: &str, to: &str) -> Result<()> {
        if let Extra::S3(s3) = &self.extra {
            let object = self.stat(from)?;
            if object.size > self.options.copy_bytes {
                return self.copy_parts(s3, &object, to);
            }
        }
        let (from_path, to_path) = (self.path(from)?, self.path(to)?);
        runtime::run(self.persist(|| self.store.copy(&from_path, &to_path)))?
            .map_err(|error| self.explain("cannot copy object", &format!("{from} to={}/{to}", self.uri), &error))
    }

    /// No object is no error.
    pub fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        match runtime::run(self.persist(|| self.store.delete(&path)))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.explain("cannot delete object", key, &error)),
        }
    }

    /// Uploads below `prefix` that were begun and neither completed nor aborted. None for Azure, which
    /// drops them by itself.
    pub fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        match &self.extra {
            Extra::S3(s3) => self.s3_uploads(s3, prefix),
            Extra::Gcs(gcs) => self.gcs_uploads(gcs, prefix),
            Extra::None => Ok(Vec::new()),
        }
    }

    pub fn abort(&self, key: &str, id: &str) -> Result<()> {
        let path = self.path(key)?;
        let id = id.to_string();
        match runtime::run(self.persist(|| self.multipart.abort_multipart(&path, &id)))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.explain("cannot abort upload", key, &error)),
        }
    }

    fn path(&self, key: &str) -> Result<Path> {
        Path::parse(key)
            .map_err(|error| Failure::invalid(format!("not a usable key of an object: uri={}/{key} reason={error}", self.uri)))
    }
}
