//! What requests that the store library does not have go through: sending one, reading the answer, trying again.

use std::future::Future;
use std::time::Instant;

use http::Request;
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::path::Path;
use object_store::Error;
use serde::Deserialize;

use super::{explain, persist, Bucket};

pub type StoreResult<T> = Result<T, Error>;

/// Sends one request; the answer's body. An address may hold a signature, which must not get into a message, so errors are made
/// here.
pub async fn execute(
    store: &'static str,
    client: &HttpClient,
    request: http::request::Builder,
    path: &Path,
) -> StoreResult<String> {
    let request: Request<HttpRequestBody> =
        request.body(HttpRequestBody::empty()).map_err(|_| wrong(store, "a request cannot be made"))?;
    let broken = |error: object_store::client::HttpError| wrong(store, &format!("HTTP error: {error}"));
    let (parts, body) = client.execute(request).await.map_err(broken)?.into_parts();
    let body = body.bytes().await.map_err(broken)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    // A copy that fails late is reported in the body of a successful answer.
    if parts.status.is_success() && !text.contains("<Error>") {
        return Ok(text);
    }
    let source = format!("Server returned non-2xx status code: {} {text}", parts.status).into();
    match parts.status.as_u16() {
        401 => Err(Error::Unauthenticated { path: path.to_string(), source }),
        403 => Err(Error::PermissionDenied { path: path.to_string(), source }),
        404 => Err(Error::NotFound { path: path.to_string(), source }),
        412 => Err(Error::Precondition { path: path.to_string(), source }),
        _ => Err(Error::Generic { store, source }),
    }
}

pub fn wrong(store: &'static str, text: &str) -> Error {
    Error::Generic { store, source: text.to_string().into() }
}

pub fn parse<'de, T: Deserialize<'de>>(store: &'static str, text: &'de str) -> StoreResult<T> {
    quick_xml::de::from_str(text)
        .map_err(|error| wrong(store, &format!("the answer is not what {store} documents: {error}")))
}

impl Bucket {
    /// With retries: the client underneath has none.
    pub(super) async fn retried<T, F>(&self, request: impl Fn() -> F) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        let start = Instant::now();
        let mut tries = 0;
        loop {
            match self.persist(&request).await {
                Err(error)
                    if explain::is_overload(&error)
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
