//! Ranges of objects, read in parallel straight into the caller's memory.

use futures_util::{stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore};

use super::{runtime, Bucket};
use crate::failure::{Code, Failure, Result};

impl Bucket {
    /// Fills `out` from `offset`. With an etag, fails with FailedPrecondition when the object is another one by now.
    pub fn read(&self, key: &str, etag: &str, offset: u64, out: &mut [u8]) -> Result<()> {
        let path = self.path(key)?;
        let end = offset + out.len() as u64;
        let part_bytes = self.options.part_bytes;
        let parts = out
            .chunks_mut(part_bytes)
            .enumerate()
            .map(|(i, part)| self.read_part(&path, etag, offset + (i * part_bytes) as u64, part));
        let read = stream::iter(parts).buffer_unordered(self.options.concurrency).try_collect::<()>();
        let Err(error) = runtime::run(read)? else { return Ok(()) };
        // A range that is not there is refused in as many ways as there are stores.
        if let Ok(object) = self.stat(key) {
            if object.size < end {
                let text = format!("object ends early: uri={}/{key} size={} want={end}", self.uri, object.size);
                return Err(Failure::new(Code::DataLoss, text));
            }
        }
        if matches!(error, Error::Precondition { .. }) {
            let text = format!("object changed while it was read: uri={}/{key}", self.uri);
            return Err(Failure::new(Code::FailedPrecondition, text));
        }
        Err(self.explain("cannot read object", key, &error))
    }

    async fn read_part(&self, path: &Path, etag: &str, offset: u64, out: &mut [u8]) -> std::result::Result<(), Error> {
        let cell = std::cell::RefCell::new(out);
        self.persist(|| async {
            // Nobody else holds it: persist waits for one try before the next.
            let mut out = cell.borrow_mut();
            let options = GetOptions {
                range: Some(GetRange::Bounded(offset..offset + out.len() as u64)),
                if_match: (!etag.is_empty()).then(|| etag.to_string()),
                ..Default::default()
            };
            let mut bytes = self.store.get_opts(path, options).await?.into_stream();
            let mut filled = 0;
            while let Some(block) = bytes.try_next().await? {
                let to = out.get_mut(filled..filled + block.len()).ok_or_else(|| ended("more"))?;
                to.copy_from_slice(&block);
                filled += block.len();
            }
            if filled < out.len() {
                return Err(ended("fewer"));
            }
            Ok(())
        })
        .await
    }
}

/// The wording makes it a transport error, which is tried again.
fn ended(how: &str) -> Error {
    Error::Generic { store: "range", source: format!("HTTP error: the answer has {how} bytes than asked for").into() }
}
