//! Requests of S3 that the store library does not have: the list of unfinished uploads, and copies in parts inside the store
//! (one request copies 5 GB at the most).

use std::sync::Arc;
use std::time::Duration;

use futures_util::{stream, StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue, Method, Request};
use object_store::aws::AmazonS3;
use object_store::client::HttpClient;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use serde::Deserialize;

use super::requests::{execute, parse, wrong, StoreResult};
use super::{runtime, Bucket, Object, PendingUpload};
use crate::failure::Result;

const STORE: &str = "S3";
const VALID_FOR: Duration = Duration::from_secs(300);

pub struct S3Requests {
    store: Arc<AmazonS3>,
    bucket: String,
    client: HttpClient,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CopyPartResult {
    #[serde(rename = "ETag")]
    e_tag: String,
}

impl S3Requests {
    pub fn new(store: Arc<AmazonS3>, bucket: &str, client: HttpClient) -> Self {
        S3Requests { store, bucket: bucket.to_string(), client }
    }

    /// One request, signed in its address; the answer's body.
    async fn send(
        &self,
        method: Method,
        path: &Path,
        query: &[(&str, String)],
        headers: &[(&'static str, String)],
    ) -> StoreResult<String> {
        let mut options = SignedUrlOptions::new().with_query(query.iter().cloned());
        let mut request = Request::builder().method(method.clone());
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).map_err(|_| wrong(STORE, "a header cannot be sent"))?;
            options = options.with_signed_header(HeaderName::from_static(name), value.clone());
            request = request.header(*name, value);
        }
        let url = self.store.signed_url_opts(method, path, VALID_FOR, &options).await?;
        execute(STORE, &self.client, request.uri(url.as_str()), path).await
    }
}

impl Bucket {
    pub(super) fn s3_uploads(&self, s3: &S3Requests, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.list_uploads(STORE, prefix, |query| async move { s3.send(Method::GET, &Path::default(), &query, &[]).await })
    }

    pub(super) fn copy_parts(&self, s3: &S3Requests, from: &Object, to: &str) -> Result<()> {
        let (from_path, to_path) = (self.path(&from.key)?, self.path(to)?);
        let copy = async {
            let id = self.persist(|| s3.store.create_multipart(&to_path)).await?;
            let done = self.copy_all_parts(s3, from, &from_path, &to_path, &id).await;
            if done.is_err() {
                let _ = s3.store.abort_multipart(&to_path, &id).await;
            }
            done
        };
        let named = format!("{} to={}/{to}", from.key, self.uri);
        runtime::run(copy)?.map_err(|error| self.explain("cannot copy object", &named, &error))
    }

    async fn copy_all_parts(
        &self,
        s3: &S3Requests,
        from: &Object,
        from_path: &Path,
        to_path: &Path,
        id: &String,
    ) -> StoreResult<()> {
        let mut source = format!("{}/", s3.bucket);
        for byte in from_path.as_ref().bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => source.push(byte.into()),
                _ => source += &format!("%{byte:02X}"),
            }
        }
        let step = self.options.copy_bytes;
        let ranges = (0..from.size.div_ceil(step)).map(|i| (i, i * step, from.size.min((i + 1) * step) - 1));
        let parts = ranges.map(|(i, first, last)| {
            let query = [("partNumber", (i + 1).to_string()), ("uploadId", id.clone())];
            let headers = [
                ("x-amz-copy-source", source.clone()),
                ("x-amz-copy-source-range", format!("bytes={first}-{last}")),
                ("x-amz-copy-source-if-match", from.etag.clone()),
            ];
            async move {
                let text = self.retried(|| s3.send(Method::PUT, to_path, &query, &headers)).await?;
                parse::<CopyPartResult>(STORE, &text).map(|part| PartId { content_id: part.e_tag })
            }
        });
        let parts: Vec<PartId> =
            stream::iter(parts).buffered(self.options.concurrency).try_collect().await?;
        self.persist(|| s3.store.complete_multipart(to_path, id, parts.clone())).await?;
        Ok(())
    }
}
