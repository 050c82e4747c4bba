//! Requests of Google's XML interface that the store library does not have: the list of unfinished uploads.

use std::sync::Arc;

use http::{Method, Request};
use object_store::client::HttpClient;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;

use super::requests::{execute, StoreResult};
use super::uploads::Query;
use super::{Bucket, PendingUpload};
use crate::failure::Result;

const STORE: &str = "GCS";
const DEFAULT_BASE_URL: &str = "https://storage.googleapis.com";

pub struct GcsRequests {
    store: Arc<GoogleCloudStorage>,
    /// With the bucket.
    url: String,
    is_signed: bool,
    client: HttpClient,
}

impl GcsRequests {
    pub fn new(
        store: Arc<GoogleCloudStorage>,
        builder: &GoogleCloudStorageBuilder,
        bucket: &str,
        client: HttpClient,
    ) -> Self {
        let base = base_url_of(builder);
        // As the store reads it.
        let unsigned = builder.get_config_value(&GoogleConfigKey::SkipSignature).unwrap_or_default().to_ascii_lowercase();
        let is_signed = !matches!(unsigned.as_str(), "1" | "true" | "on" | "yes" | "y");
        let url = format!("{}/{}", base.trim_end_matches('/'), escaped(bucket));
        GcsRequests { store, url, is_signed, client }
    }

    async fn get(&self, query: &Query) -> StoreResult<String> {
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let mut request = Request::builder().method(Method::GET).uri(format!("{}?{}", self.url, query.join("&")));
        if self.is_signed {
            let credential = self.store.credentials().get_credential().await?;
            // None of a service account that does without.
            if !credential.bearer.is_empty() {
                request = request.header(http::header::AUTHORIZATION, format!("Bearer {}", credential.bearer));
            }
        }
        execute(STORE, &self.client, request, &Path::default()).await
    }
}

/// Where the store sends its requests: the setting, else what the key of the service account says, else the cloud.
fn base_url_of(builder: &GoogleCloudStorageBuilder) -> String {
    if let Some(url) = builder.get_config_value(&GoogleConfigKey::BaseUrl) {
        return url;
    }
    let file = |key| builder.get_config_value(&key).and_then(|path| std::fs::read_to_string(path).ok());
    let account = builder
        .get_config_value(&GoogleConfigKey::ServiceAccountKey)
        .or_else(|| file(GoogleConfigKey::ServiceAccount));
    let value: Option<serde_json::Value> = account.and_then(|text| serde_json::from_str(&text).ok());
    let url = value.and_then(|value| value.get("gcs_base_url").and_then(|url| url.as_str().map(String::from)));
    url.unwrap_or_else(|| DEFAULT_BASE_URL.to_string())
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

impl Bucket {
    pub(super) fn gcs_uploads(&self, gcs: &GcsRequests, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.list_uploads(STORE, prefix, |query| async move { gcs.get(&query).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_where_the_stores_own_go() {
        let account = r#"{"private_key": "k", "private_key_id": "i", "client_email": "e", "disable_oauth": true, "gcs_base_url": "https://of-the-key"}"#;
        let builder = || GoogleCloudStorageBuilder::new().with_bucket_name("b");
        assert_eq!(base_url_of(&builder()), DEFAULT_BASE_URL);
        assert_eq!(base_url_of(&builder().with_service_account_key(account)), "https://of-the-key");
        assert_eq!(
            base_url_of(&builder().with_service_account_key(account).with_base_url("https://given")),
            "https://given"
        );
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("a b/ü"), "a%20b%2F%C3%BC");
    }
}
