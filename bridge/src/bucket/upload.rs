//! An object written in order, as a multipart upload of bounded memory. It is visible only when finished.

use std::sync::Arc;

use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, MultipartId, PutPayload};
use tokio::task::JoinSet;

use super::{runtime, Bucket};
use crate::failure::{Code, Failure, Result};

/// S3 takes 10,000 parts.
const MAX_PARTS: u64 = 9_000;
const MEBIBYTE: u64 = 1 << 20;

type Part = (usize, std::result::Result<PartId, Error>);

pub struct Upload {
    bucket: Arc<Bucket>,
    key: String,
    path: Path,
    part_bytes: usize,
    buffer: Vec<u8>,
    total: u64,
    /// None until the first part is full: a small object is one request.
    id: Option<MultipartId>,
    parts: Vec<Option<PartId>>,
    under_way: JoinSet<Part>,
    finished: bool,
}

impl Upload {
    /// `size`: of the whole, if it is known; 0 otherwise.
    pub fn start(bucket: Arc<Bucket>, key: &str, size: u64) -> Result<Upload> {
        let path = bucket.path(key)?;
        let needed = size.div_ceil(MAX_PARTS).next_multiple_of(MEBIBYTE) as usize;
        Ok(Upload {
            key: key.to_string(),
            path,
            part_bytes: bucket.options.part_bytes.max(needed),
            buffer: Vec::new(),
            total: 0,
            id: None,
            parts: Vec::new(),
            under_way: JoinSet::new(),
            finished: false,
            bucket,
        })
    }

    /// Waits while as many parts as allowed are under way.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.part_bytes - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == self.part_bytes {
                self.send_buffer()?;
            }
        }
        Ok(())
    }

    pub fn finish(&mut self) -> Result<()> {
        let Some(id) = self.id.clone() else {
            self.bucket.put(&self.key, &std::mem::take(&mut self.buffer))?;
            self.finished = true;
            return Ok(());
        };
        if !self.buffer.is_empty() {
            self.send_buffer()?;
        }
        while !self.under_way.is_empty() {
            self.wait_for_part()?;
        }
        let parts: Vec<PartId> = self.parts.iter().flatten().cloned().collect();
        let complete = || self.bucket.multipart.complete_multipart(&self.path, &id, parts.clone());
        let done = match runtime::run(self.bucket.persist(complete))? {
            Ok(_) => Ok(()),
            Err(error) => self.look_again(&error),
        };
        self.finished = done.is_ok();
        done
    }

    /// Drops what was sent; nothing becomes visible.
    pub fn abort(&mut self) -> Result<()> {
        if let Ok(runtime) = runtime::runtime() {
            runtime.block_on(self.under_way.shutdown());
        }
        self.buffer = Vec::new();
        match self.id.take() {
            Some(id) if !self.finished => self.bucket.abort(&self.key, &id),
            _ => Ok(()),
        }
    }

    /// When the answer to a completion is lost, the next try hears that there is no such upload.
    fn look_again(&self, error: &Error) -> Result<()> {
        if matches!(error, Error::NotFound { .. }) {
            if let Ok(object) = self.bucket.stat(&self.key) {
                if object.size == self.total {
                    return Ok(());
                }
            }
            let text = format!("upload was aborted by somebody else: uri={}/{}", self.bucket.uri, self.key);
            return Err(Failure::new(Code::Unavailable, text));
        }
        Err(self.failure(error))
    }

    fn send_buffer(&mut self) -> Result<()> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let create = || self.bucket.multipart.create_multipart(&self.path);
                let id = runtime::run(self.bucket.persist(create))?.map_err(|error| self.failure(&error))?;
                self.id = Some(id.clone());
                id
            }
        };
        while self.under_way.len() >= self.bucket.options.concurrency {
            self.wait_for_part()?;
        }
        let number = self.parts.len();
        self.parts.push(None);
        let payload = PutPayload::from(std::mem::take(&mut self.buffer));
        let (bucket, path) = (Arc::clone(&self.bucket), self.path.clone());
        let part = async move {
            let send = || bucket.multipart.put_part(&path, &id, number, payload.clone());
            (number, bucket.persist(send).await)
        };
        self.under_way.spawn_on(part, runtime::runtime()?.handle());
        Ok(())
    }

    fn wait_for_part(&mut self) -> Result<()> {
        match runtime::run(self.under_way.join_next())? {
            Some(Ok((number, Ok(part)))) => {
                self.parts[number] = Some(part);
                Ok(())
            }
            Some(Ok((_, Err(error)))) => Err(self.failure(&error)),
            Some(Err(error)) => Err(Failure::new(Code::Internal, format!("a part of an upload was lost: {error}"))),
            None => Ok(()),
        }
    }

    fn failure(&self, error: &Error) -> Failure {
        self.bucket.explain("cannot upload object", &self.key, error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What cannot be aborted now is swept later.
        let _ = self.abort();
    }
}
