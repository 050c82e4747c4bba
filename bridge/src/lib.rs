//! Tokenizers and chat templates behind the C interface of include/bearing_bridge.h.
//!
//! The crate is one static library. Only `abi` knows about C; everything else is plain Rust that returns `Failure`.

mod abi;
mod chat_tokenizer;
mod failure;
mod llama_pipeline;
mod model_folder;
mod python_text;
mod qwen;
mod template;
mod tiktoken;
mod tojson;
