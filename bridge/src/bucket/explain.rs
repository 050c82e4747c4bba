//! Errors of the store library as one line that names operation, address and status, and nothing that is secret.
//!
//! The library's own text holds request addresses (which may carry signatures) and whole answers of servers (which may carry key
//! ids), so only the parts named here are taken from it.

use std::error::Error as _;

use object_store::Error;

use super::Bucket;
use crate::failure::{Code, Failure};

const MAX_REASON: usize = 300;

impl Bucket {
    pub(super) fn explain(&self, what: &str, key: &str, error: &Error) -> Failure {
        let text = chain(error);
        let status = status_in(&text);
        let reason = self.secrets.hide(&reason_in(error, &text));
        let mut line = format!("{what}: uri={}/{key}", self.uri);
        if let Some(status) = status {
            line += &format!(" status={status}");
        }
        line += &format!(" reason={reason}");
        Failure::new(code_of(error, status, &text), line)
    }
}

/// Did the request end without an answer that can be read?
pub fn is_transport(error: &Error) -> bool {
    let Error::Generic { .. } = error else { return false };
    let text = chain(error);
    status_in(&text).is_none() && text.contains("HTTP error")
}

/// Has the store library tried this request as often as it may?
pub fn is_given_up(error: &Error, max_retries: usize) -> bool {
    chain(error).contains(&format!("after {max_retries} retries"))
}

/// Did the server say that it cannot now?
pub fn is_overload(error: &Error) -> bool {
    matches!(status_in(&chain(error)), Some(408 | 429 | 500..=599))
}

fn code_of(error: &Error, status: Option<u16>, text: &str) -> Code {
    // S3 says that a token has expired with status 400.
    if ["ExpiredToken", "InvalidToken", "RequestExpired"].iter().any(|code| text.contains(code)) {
        return Code::Unauthenticated;
    }
    match error {
        Error::NotFound { .. } => Code::NotFound,
        Error::AlreadyExists { .. } => Code::AlreadyExists,
        Error::Precondition { .. } | Error::NotModified { .. } => Code::FailedPrecondition,
        Error::PermissionDenied { .. } => Code::PermissionDenied,
        Error::Unauthenticated { .. } => Code::Unauthenticated,
        Error::NotImplemented { .. } | Error::NotSupported { .. } => Code::Unimplemented,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => Code::InvalidArgument,
        _ => match status {
            Some(507) => Code::ResourceExhausted,
            None | Some(408 | 429 | 500..=599) => Code::Unavailable,
            Some(416) => Code::DataLoss,
            Some(_) => Code::FailedPrecondition,
        },
    }
}

/// An error and its causes, which the library's own text does not always repeat.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += " - ";
        text += &inner.to_string();
        cause = inner.source();
    }
    text
}

/// "... status code: 503 Service Unavailable ..."
fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn reason_in(error: &Error, text: &str) -> String {
    // The servers' answers are XML with a code and a message.
    if let Some(code) = element(text, "Code") {
        let message = element(text, "Message").map_or(String::new(), |message| format!(" ({message})"));
        return shorten(&format!("{code}{message}"));
    }
    if let Some(status) = status_in(text) {
        let name = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        // Answers to HEAD have no body that says more.
        let hint = if status == 400 { " (an expired token and a wrong region are answered so)" } else { "" };
        return format!("{}{hint}", name.unwrap_or("no reason given"));
    }
    if text.contains("HTTP error") {
        return shorten(&format!("no answer: {}", innermost(error)));
    }
    shorten(&innermost(error))
}

fn innermost(error: &Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    inner.to_string()
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content)
}

/// One line, without what follows the question mark of an address.
fn shorten(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        let word = match (word.contains("://"), word.split_once('?')) {
            (true, Some((address, _))) => address,
            _ => word,
        };
        line += if line.is_empty() { "" } else { " " };
        line += word;
    }
    match line.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_string().into() }
    }

    #[test]
    fn answers_are_read_for_code_and_message_only() {
        let error = generic(
            "Error performing PUT http://h/b/k?X-Amz-Signature=abc in 1s - Server returned non-2xx status code: 403 Forbidden: \
             <Error><Code>SignatureDoesNotMatch</Code><Message>no match</Message><AWSAccessKeyId>AKIDX</AWSAccessKeyId></Error>",
        );
        let text = chain(&error);
        assert_eq!(status_in(&text), Some(403));
        assert_eq!(reason_in(&error, &text), "SignatureDoesNotMatch (no match)");
    }

    #[test]
    fn queries_of_addresses_are_cut() {
        assert_eq!(shorten("failed at https://h/p?sig=s now"), "failed at https://h/p now");
    }
}
