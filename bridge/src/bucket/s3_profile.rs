//! What the store library leaves out of the usual chain of S3: the shared credentials and config files that `aws configure`
//! writes. Only keys that stand in them; profiles that log in through a program or another role are not read.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use object_store::aws::AmazonS3ConfigKey;

/// Variables that come before the files in the chain.
const EARLIER: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Settings from the files that the environment does not give.
pub fn settings_for_environment() -> Vec<(AmazonS3ConfigKey, String)> {
    let profile = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_string());
    let named = match profile.as_str() {
        "default" => profile.clone(),
        _ => format!("profile {profile}"),
    };
    let config = read("AWS_CONFIG_FILE", "config", &named);
    let mut settings = Vec::new();
    let mut add = |key: AmazonS3ConfigKey, value: Option<&String>| {
        settings.extend(value.map(|value| (key, value.clone())));
    };
    if !any_set(&["AWS_REGION", "AWS_DEFAULT_REGION"]) {
        add(AmazonS3ConfigKey::Region, config.get("region"));
    }
    if !any_set(&["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"]) {
        add(AmazonS3ConfigKey::Endpoint, config.get("endpoint_url"));
    }
    if !any_set(&EARLIER) && !any_set(&["AWS_SKIP_SIGNATURE"]) {
        let mut credentials = config;
        credentials.extend(read("AWS_SHARED_CREDENTIALS_FILE", "credentials", &profile));
        if credentials.contains_key("aws_access_key_id") && credentials.contains_key("aws_secret_access_key") {
            add(AmazonS3ConfigKey::AccessKeyId, credentials.get("aws_access_key_id"));
            add(AmazonS3ConfigKey::SecretAccessKey, credentials.get("aws_secret_access_key"));
            add(AmazonS3ConfigKey::Token, credentials.get("aws_session_token"));
        }
    }
    settings
}

pub fn is_secret(key: &AmazonS3ConfigKey) -> bool {
    matches!(key, AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token)
}

fn any_set(names: &[&str]) -> bool {
    names.iter().any(|name| env::var_os(name).is_some())
}

/// The keys of one section of ~/.aws/NAME, or of the file that `variable` names; none when it cannot be read.
fn read(variable: &str, name: &str, section: &str) -> BTreeMap<String, String> {
    let in_home = || Some(PathBuf::from(env::var_os("HOME")?).join(".aws").join(name));
    let path = env::var_os(variable).map(PathBuf::from).or_else(in_home);
    let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    section_of(&text, section)
}

fn section_of(text: &str, section: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut keys = BTreeMap::new();
    for line in text.lines() {
        // An indented line belongs to the key above it ("s3 =").
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            keys.insert(key.trim().to_string(), value.trim().to_string());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_told_apart() {
        let text = "[default]\naws_access_key_id = a\ns3 =\n  region = no\n# c = d\n[profile x]\nregion=eu\n";
        let default = section_of(text, "default");
        assert_eq!(default["aws_access_key_id"], "a");
        assert!(!default.contains_key("region"));
        assert_eq!(section_of(text, "profile x")["region"], "eu");
    }
}
