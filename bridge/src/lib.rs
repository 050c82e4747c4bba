//! Tokenizers, chat templates and object stores behind the C interface of include/.
//!
//! The crate is one static library. Only `abi` and `abi_bucket` know about C; everything else is plain Rust that returns `Failure`.

mod abi;
mod abi_bucket;
mod bucket;
mod chat_tokenizer;
mod failure;
mod llama_pipeline;
mod model_folder;
mod python_text;
mod qwen;
mod template;
mod tiktoken;
mod tojson;
