//! What went wrong, as a code of the C interface and a line of text.

use std::fmt::Display;
use std::path::Path;

/// The values of `bearing_code` in the C header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 1,
    NotFound = 2,
    FailedPrecondition = 3,
    ResourceExhausted = 4,
    Internal = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    Unauthenticated = 8,
    Unavailable = 9,
    DataLoss = 10,
    Unimplemented = 11,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub text: String,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }

    pub fn invalid(text: impl Into<String>) -> Self {
        Failure::new(Code::InvalidArgument, text)
    }

    /// A file whose content is wrong.
    pub fn bad_file(what: &str, path: &Path, reason: impl Display) -> Self {
        Failure::invalid(format!("{what}: file={} reason={reason}", path.display()))
    }
}
