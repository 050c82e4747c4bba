//! Requests of S3 that the store library does not have: the list of unfinished uploads, and copies in parts inside the store
//! (one request copies 5 GB at the most).

use std::sync::Arc;
use std::time::Duration;

use futures_util::{stream, StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue, Method, Request};
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::Error;
use serde::Deserialize;

use super::{persist, runtime, Bucket, Object, PendingUpload};
use crate::failure::Result;

type StoreResult<T> = std::result::Result<T, Error>;

const VALID_FOR: Duration = Duration::from_secs(300);

pub struct S3Requests {
    store: Arc<AmazonS3>,
    bucket: String,
    client: HttpClient,
}

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

    /// One request, signed in its address; the answer's body. An address with a signature must not get into a message, so errors
    /// are made here.
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
            let value = HeaderValue::from_str(value).map_err(|_| wrong("a header cannot be sent"))?;
            options = options.with_signed_header(HeaderName::from_static(name), value.clone());
            request = request.header(*name, value);
        }
        let url = self.store.signed_url_opts(method, path, VALID_FOR, &options).await?;
        let request = request
            .uri(url.as_str())
            .body(HttpRequestBody::empty())
            .map_err(|_| wrong("a request cannot be made"))?;
        let broken = |error: object_store::client::HttpError| wrong(&format!("HTTP error: {error}"));
        let (parts, body) = self.client.execute(request).await.map_err(broken)?.into_parts();
        let body = body.bytes().await.map_err(broken)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        // A copy that fails late is reported in the body of a successful answer.
        if parts.status.is_success() && !text.contains("<Error>") {
            return Ok(text);
        }
        let source = format!("Server returned non-2xx status code: {} {text}", parts.status).into();
        match parts.status.as_u16() {
            403 => Err(Error::PermissionDenied { path: path.to_string(), source }),
            404 => Err(Error::NotFound { path: path.to_string(), source }),
            412 => Err(Error::Precondition { path: path.to_string(), source }),
            _ => Err(Error::Generic { store: "S3", source }),
        }
    }
}

fn wrong(text: &str) -> Error {
    Error::Generic { store: "S3", source: text.to_string().into() }
}

fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> StoreResult<T> {
    quick_xml::de::from_str(text).map_err(|error| wrong(&format!("the answer is not what S3 documents: {error}")))
}

impl Bucket {
    pub(super) fn s3_uploads(&self, s3: &S3Requests, prefix: &str) -> Result<Vec<PendingUpload>> {
        let folder = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query = vec![("uploads", String::new()), ("prefix", folder.clone())];
            if !key_marker.is_empty() {
                query.push(("key-marker", key_marker.clone()));
                query.push(("upload-id-marker", id_marker.clone()));
            }
            let root = Path::default();
            let list = async {
                let text = self.s3_send(s3, Method::GET, &root, &query, &[]).await?;
                parse::<ListMultipartUploadsResult>(&text)
            };
            let page = runtime::run(list)?.map_err(|error| self.explain("cannot list uploads", prefix, &error))?;
            for upload in page.uploads {
                // Not every server heeds the prefix.
                if upload.key.starts_with(&folder) {
                    found.push(PendingUpload { key: upload.key, id: upload.upload_id });
                }
            }
            let next = page.next_key_marker.unwrap_or_default();
            if !page.is_truncated || next.is_empty() || next == key_marker {
                return Ok(found);
            }
            (key_marker, id_marker) = (next, page.next_upload_id_marker.unwrap_or_default());
        }
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
                let text = self.s3_send(s3, Method::PUT, to_path, &query, &headers).await?;
                parse::<CopyPartResult>(&text).map(|part| PartId { content_id: part.e_tag })
            }
        });
        let parts: Vec<PartId> =
            stream::iter(parts).buffered(self.options.concurrency).try_collect().await?;
        self.persist(|| s3.store.complete_multipart(to_path, id, parts.clone())).await?;
        Ok(())
    }

    /// With retries: the client underneath has none.
    async fn s3_send(
        &self,
        s3: &S3Requests,
        method: Method,
        path: &Path,
        query: &[(&str, String)],
        headers: &[(&'static str, String)],
    ) -> StoreResult<String> {
        let start = std::time::Instant::now();
        let mut tries = 0;
        loop {
            match self.persist(|| s3.send(method.clone(), path, query, headers)).await {
                Err(error)
                    if super::explain::is_overload(&error)
                        && tries < self.options.max_retries
                        && start.elapsed() < self.options.retry_time =>
                {
                    tokio::time::sleep(persist::pause(tries)).await;
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}
