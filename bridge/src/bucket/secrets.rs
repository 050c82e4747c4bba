//! What must never be seen in a message.

/// Shorter values would hide innocent text.
const MIN_LENGTH: usize = 6;

#[derive(Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Values of the variables that hold credentials of a cloud.
    pub fn from_environment() -> Self {
        let mut secrets = Secrets::default();
        for (name, value) in std::env::vars_os() {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                continue;
            };
            let of_cloud = ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|cloud| name.starts_with(cloud));
            let telling = ["KEY", "SECRET", "TOKEN", "SAS", "PROXY_URL"].iter().any(|word| name.contains(word));
            // The path of a token's file is no secret, and worth seeing.
            if of_cloud && telling && !name.ends_with("_FILE") {
                secrets.add(value);
            }
        }
        secrets
    }

    pub fn add(&mut self, value: &str) {
        if value.len() >= MIN_LENGTH {
            self.0.push(value.to_string());
        }
    }

    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, secret| text.replace(secret, "[hidden]"))
    }
}
