//! From an address to a store: which cloud, settings from its environment variables, credentials from its chain.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::gcs_requests::GcsRequests;
use super::s3_requests::S3Requests;
use super::secrets::Secrets;
use super::{s3_profile, Bucket, Extra, Options};
use crate::failure::{Failure, Result};

pub fn connect(uri: &str, options: Options) -> Result<Bucket> {
    let (scheme, name) = uri.split_once("://").ok_or_else(|| Failure::invalid(format!("not an address: uri={uri}")))?;
    if name.is_empty() || name.contains('/') {
        return Err(Failure::invalid(format!("want scheme://bucket: uri={uri}")));
    }
    let mut secrets = Secrets::from_environment();
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: options.max_retries,
        retry_timeout: options.retry_time,
    };
    let made = match scheme {
        "s3" => s3(name, retry, &mut secrets),
        "gs" => gcs(name, retry),
        "az" => azure(name, retry),
        _ => return Err(Failure::invalid(format!("want s3://, gs:// or az://: uri={uri}"))),
    };
    let (store, multipart, extra) = made.map_err(|error| {
        let reason = secrets.hide(&error.to_string());
        Failure::invalid(format!("cannot set up object storage from the environment: uri={uri} reason={reason}"))
    })?;
    Ok(Bucket { uri: uri.to_string(), options, store, multipart, extra, secrets })
}

type Parts = (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>, Extra);

fn s3(name: &str, retry: RetryConfig, secrets: &mut Secrets) -> object_store::Result<Parts> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retry);
    for (key, value) in s3_profile::settings_for_environment() {
        if s3_profile::is_secret(&key) {
            secrets.add(&value);
        }
        builder = builder.with_config(key, value);
    }
    let options = client_options("AWS_");
    let s3 = Arc::new(builder.build()?);
    let requests = S3Requests::new(Arc::clone(&s3), name, ReqwestConnector::default().connect(&options)?);
    Ok((Arc::clone(&s3) as _, s3, Extra::S3(requests)))
}

fn gcs(name: &str, retry: RetryConfig) -> object_store::Result<Parts> {
    let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(name).with_retry(retry);
    let store = Arc::new(builder.clone().build()?);
    let client = ReqwestConnector::default().connect(&client_options("GOOGLE_"))?;
    let requests = GcsRequests::new(Arc::clone(&store), &builder, name, client);
    Ok((Arc::clone(&store) as _, store, Extra::Gcs(requests)))
}

fn azure(name: &str, retry: RetryConfig) -> object_store::Result<Parts> {
    let store = Arc::new(MicrosoftAzureBuilder::from_env().with_container_name(name).with_retry(retry).build()?);
    Ok((Arc::clone(&store) as _, store, Extra::None))
}

/// The options of the connection that the store library reads from the same variables.
fn client_options(prefix: &str) -> ClientOptions {
    let mut options = ClientOptions::new();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let Some(name) = name.strip_prefix(prefix) else { continue };
        if let Ok(key) = name.to_lowercase().parse() {
            options = options.with_config(key, value);
        }
    }
    options
}
