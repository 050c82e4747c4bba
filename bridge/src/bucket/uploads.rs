//! The list of unfinished multipart uploads, which S3 and Google's XML interface give alike, page by page.

use std::future::Future;

use serde::Deserialize;

use super::requests::{parse, StoreResult};
use super::{runtime, Bucket, PendingUpload};
use crate::failure::Result;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListMultipartUploadsResult {
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    uploads: Vec<UploadEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadEntry {
    key: String,
    upload_id: String,
}

pub type Query = Vec<(&'static str, String)>;

impl Bucket {
    /// Those below `prefix`. `request` sends a request for one page to the bucket.
    pub(super) fn list_uploads<F>(
        &self,
        store: &'static str,
        prefix: &str,
        request: impl Fn(Query) -> F,
    ) -> Result<Vec<PendingUpload>>
    where
        F: Future<Output = StoreResult<String>>,
    {
        let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query: Query = vec![("uploads", String::new()), ("prefix", folder.clone())];
            if !key_marker.is_empty() {
                query.push(("key-marker", key_marker.clone()));
                query.push(("upload-id-marker", id_marker.clone()));
            }
            let list = async {
                let text = self.retried(|| request(query.clone())).await?;
                parse::<ListMultipartUploadsResult>(store, &text)
            };
            let page = runtime::run(list)?.map_err(|error| self.explain("cannot list uploads", prefix, &error))?;
            for upload in page.uploads {
                // Not every server heeds the prefix.
                if upload.key.starts_with(&folder) {
                    found.push(PendingUpload { key: upload.key, id: upload.upload_id });
                }
            }
            let (next, next_id) =
                (page.next_key_marker.unwrap_or_default(), page.next_upload_id_marker.unwrap_or_default());
            // The uploads of one key may take more than a page.
            if !page.is_truncated || next.is_empty() || (next == key_marker && next_id == id_marker) {
                return Ok(found);
            }
            (key_marker, id_marker) = (next, next_id);
        }
    }
}
