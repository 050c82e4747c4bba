//! The places where text in Python and in Rust differ and a template can see it.

use std::ffi::CString;
use std::mem::MaybeUninit;

use minijinja::value::{from_args, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// `str.isspace` of one character: Unicode white space and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Methods of Python strings, dicts and lists that templates call.
pub fn call_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text), true) = (value.kind(), value.as_str(), args.is_empty()) {
        match method {
            "strip" => return Ok(Value::from(text.trim_matches(is_space))),
            "lstrip" => return Ok(Value::from(text.trim_start_matches(is_space))),
            "rstrip" => return Ok(Value::from(text.trim_end_matches(is_space))),
            "split" => {
                let words = text.split(is_space).filter(|word| !word.is_empty());
                return Ok(words.map(Value::from).collect());
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// The `trim` filter, which is `str.strip` of the value's text.
pub fn trim(value: &Value, args: &[Value]) -> Result<String, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    let text = value.to_string();
    Ok(match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_string(),
        None => text.trim_matches(is_space).to_string(),
    })
}

/// `datetime.now().strftime(format)`, which is the C function on local time.
pub fn strftime_now(format: &str) -> Result<String, Error> {
    let bad_format = || {
        let text = format!("strftime_now cannot use this format: format={format:?}");
        Error::new(ErrorKind::InvalidOperation, text)
    };
    if format.is_empty() {
        return Ok(String::new());
    }
    let c_format = CString::new(format).map_err(|_| bad_format())?;
    let mut buffer = vec![0u8; 64 + 32 * format.len()];
    let mut now = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: every pointer is to a live local; strftime writes at most buffer.len() bytes and returns how many.
    let written = unsafe {
        let seconds = libc::time(std::ptr::null_mut());
        if libc::localtime_r(&seconds, now.as_mut_ptr()).is_null() {
            return Err(bad_format());
        }
        let start = buffer.as_mut_ptr().cast();
        libc::strftime(start, buffer.len(), c_format.as_ptr(), now.as_ptr())
    };
    buffer.truncate(written);
    String::from_utf8(buffer).map_err(|_| bad_format())
}
