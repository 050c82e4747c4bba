//! The C interface. Every entry catches panics; every pointer's contract is in include/bearing_bridge.h.

use std::any::Any;
use std::ffi::c_char;
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use crate::chat_tokenizer::ChatTokenizer;
use crate::failure::{Code, Failure, Result};
use crate::template::Message;

#[repr(C)]
pub struct Text {
    pub data: *const c_char,
    pub size: usize,
}

#[repr(C)]
pub struct OwnedText {
    data: *mut c_char,
    size: usize,
}

#[repr(C)]
pub struct OwnedIds {
    data: *mut i32,
    size: usize,
}

#[repr(C)]
pub struct ChatMessage {
    role: Text,
    content: Text,
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_load(
    model_dir: Text,
    template_file: Text,
    out: *mut *mut ChatTokenizer,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let folder = model_dir.as_str("model folder")?;
        let template_file = template_file.as_str("template file")?;
        let template_file = (!template_file.is_empty()).then(|| Path::new(template_file));
        let tokenizer = ChatTokenizer::load(Path::new(folder), template_file)?;
        out.write(Box::into_raw(Box::new(tokenizer)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_free(tokenizer: *mut ChatTokenizer) {
    if !tokenizer.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(tokenizer));
            Ok(())
        });
    }
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_render(
    tokenizer: *const ChatTokenizer,
    messages: *const ChatMessage,
    num_messages: usize,
    add_generation_prompt: bool,
    out: *mut OwnedText,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let messages = slice(messages, num_messages)
            .iter()
            .map(|message| {
                Ok(Message {
                    role: message.role.as_str("role of a message")?,
                    content: message.content.as_str("content of a message")?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        out.write((*tokenizer).render(&messages, add_generation_prompt)?.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_encode(
    tokenizer: *const ChatTokenizer,
    text: Text,
    add_special_tokens: bool,
    out: *mut OwnedIds,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let ids = (*tokenizer).encode(text.as_str("text")?, add_special_tokens)?;
        let (data, size) = leak(ids);
        out.write(OwnedIds { data, size });
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_decode(
    tokenizer: *const ChatTokenizer,
    ids: *const i32,
    num_ids: usize,
    skip_special_tokens: bool,
    out: *mut OwnedText,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        let ids = slice(ids, num_ids);
        out.write((*tokenizer).decode(ids, skip_special_tokens)?.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_token_text(
    tokenizer: *const ChatTokenizer,
    id: i32,
    out: *mut OwnedText,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        out.write((*tokenizer).token_text(id)?.into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_tokenizer_token_to_id(
    tokenizer: *const ChatTokenizer,
    token: Text,
    out: *mut i32,
    error: *mut OwnedText,
) -> i32 {
    guard(error, || {
        out.write((*tokenizer).token_to_id(token.as_str("token")?).unwrap_or(-1));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn bearing_bridge_panic(message: Text, error: *mut OwnedText) -> i32 {
    guard(error, || panic!("{}", message.as_str("message")?))
}

#[no_mangle]
pub unsafe extern "C" fn bearing_text_free(text: OwnedText) {
    free(text.data, text.size);
}

#[no_mangle]
pub unsafe extern "C" fn bearing_ids_free(ids: OwnedIds) {
    free(ids.data, ids.size);
}

impl Text {
    pub unsafe fn as_bytes(&self) -> &[u8] {
        slice(self.data.cast(), self.size)
    }

    pub unsafe fn as_str(&self, what: &str) -> Result<&str> {
        std::str::from_utf8(self.as_bytes())
            .map_err(|error| Failure::invalid(format!("{what} is not UTF-8: reason={error}")))
    }
}

impl From<String> for OwnedText {
    fn from(text: String) -> Self {
        let (data, size) = leak(text.into_bytes());
        OwnedText { data: data.cast(), size }
    }
}

/// Runs the body of an entry; a panic in it becomes a code, and its text the error.
pub unsafe fn guard(error: *mut OwnedText, body: impl FnOnce() -> Result<()>) -> i32 {
    static SILENCE: Once = Once::new();
    // The text goes to the caller, so the hook that prints it would only repeat it on the terminal.
    SILENCE.call_once(|| set_hook(Box::new(|_| {})));
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            let text = panic_text(&*payload);
            let text = format!("the bridge failed inside, which is a bug: panic={text}");
            // Dropping a payload runs foreign code that may itself panic; a panic is rare enough to leave it.
            std::mem::forget(payload);
            Failure::new(Code::Internal, text)
        }
    };
    if !error.is_null() {
        error.write(failure.text.into());
    }
    failure.code as i32
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<String>() {
        return text;
    }
    payload.downcast_ref::<&str>().copied().unwrap_or("unknown")
}

/// C may pass null for an empty array; a Rust slice may not be null.
pub unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    match size {
        0 => &[],
        _ => std::slice::from_raw_parts(data, size),
    }
}

fn leak<T>(items: Vec<T>) -> (*mut T, usize) {
    let size = items.len();
    (Box::into_raw(items.into_boxed_slice()).cast(), size)
}

unsafe fn free<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, size)));
    }
}
