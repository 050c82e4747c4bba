//! Qwen-1, whose folders hold `qwen.tiktoken` and keep the rest, special tokens and chat format, in Python code.

use std::path::Path;

use serde_json::{json, Map, Value};

use crate::failure::Result;
use crate::tiktoken;

pub const VOCABULARY_FILE: &str = "qwen.tiktoken";

/// The format of Qwen-1's `make_context` with its default system prompt.
pub const CHAT_TEMPLATE: &str = "\
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

const WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const NUM_EXTRA_TOKENS: usize = 205;

/// The tokenizer.json of a vocabulary file. Special tokens are numbered after its ranks.
pub fn tokenizer_json(file: &[u8], path: &Path) -> Result<Vec<u8>> {
    let tokens = tiktoken::read_tokens(file, path)?;
    let alphabet = tiktoken::byte_level_alphabet();
    let text = |bytes: &[u8]| tiktoken::byte_level_text(bytes, &alphabet);
    let vocabulary: Map<String, Value> = tokens.iter().enumerate().map(|(rank, token)| (text(token), rank.into())).collect();
    let merges: Vec<[String; 2]> = tiktoken::merges(&tokens).into_iter().map(|(a, b)| [text(a), text(b)]).collect();
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_string).into_iter();
    let extra = (0..NUM_EXTRA_TOKENS).map(|number| format!("<|extra_{number}|>"));
    // Qwen-1 normalizes a text before it looks for special tokens, hence "normalized".
    let added_tokens: Vec<Value> = special
        .chain(extra)
        .enumerate()
        .map(|(index, content)| {
            json!({"id": tokens.len() + index, "content": content, "special": true, "normalized": true,
                   "single_word": false, "lstrip": false, "rstrip": false})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let words = json!({"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false});
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added_tokens,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, byte_level]},
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": true},
    });
    Ok(tokenizer.to_string().into_bytes())
}
