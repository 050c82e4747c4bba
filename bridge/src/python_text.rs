//! The places where text in Python and in Rust differ and a template can see it.

use std::ffi::CString;
use std::mem::MaybeUninit;

use minijinja::value::{from_args, Kwargs, Rest, ValueKind, ValueOrKwargs};
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

/// The `indent` filter. Unlike minijinja's own it keeps a last empty line, and it knows all line ends of `str.splitlines`.
pub fn indent(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (positions, names): (&[Value], Kwargs) = from_args(&args)?;
    let argument = |index: usize, name: &str| match positions.get(index) {
        Some(value) => Ok(Some(value.clone())),
        None => names.get::<Option<Value>>(name),
    };
    let width = argument(0, "width")?.unwrap_or_else(|| Value::from(4));
    let is_set = |flag: Option<Value>| flag.is_some_and(|flag| flag.is_true());
    let (first, blank) = (is_set(argument(1, "first")?), is_set(argument(2, "blank")?));
    names.assert_all_used()?;
    let indention = match (width.as_str(), width.as_usize()) {
        (Some(text), _) => text.to_string(),
        (None, Some(width)) if width <= MAX_INDENT => " ".repeat(width),
        _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("indent cannot use this width: width={width}"))),
    };
    let mut out = String::new();
    for (index, line) in split_lines(&value.to_string()).iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let wanted = if index == 0 { first } else { blank || !line.is_empty() };
        if wanted {
            out.push_str(&indention);
        }
        out.push_str(line);
    }
    Ok(out)
}

const MAX_INDENT: usize = 4096;

/// `(text + "\n").splitlines()`: at least one line.
fn split_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')) {
        lines.push(&rest[..at]);
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        rest = &rest[at + end..];
    }
    // A carriage return at the end makes one line end with the added new line.
    if !(rest.is_empty() && text.ends_with('\r')) {
        lines.push(rest);
    }
    lines
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
