//! What transformers 5 makes of a SentencePiece vocabulary whose configuration names the class LlamaTokenizer.
//!
//! Old tokenizer.json files (Llama 2, Yi) put a space before every stretch between special tokens, which the models were not
//! trained with; transformers takes their vocabulary and merges and replaces the rest, by `legacy` and `add_prefix_space`.
//! Model types that it loads from tokenizer.json as it stands are left alone, and so are byte-level vocabularies, which name
//! the class by mistake (DeepSeek's).

use serde_json::{json, Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Of the supported model types, those for which transformers does not follow `tokenizer_class`.
const OTHER_RULE: [&str; 4] = ["mistral", "mixtral", "phi3", "qwen2"];
const DEFAULT_TOKENS: [(&str, &str); 3] = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];

pub struct LlamaPipeline {
    add_prefix_space: bool,
    /// Put the space before every stretch between special tokens, not only at the start of the text.
    everywhere: bool,
    /// Name and text of the tokens that the class has when the configuration does not mention them.
    pub default_tokens: Vec<(&'static str, &'static str)>,
}

impl LlamaPipeline {
    /// From tokenizer_config.json and config.json; none if they do not call for it.
    pub fn named_by(tokenizer_config: &Map<String, Value>, model_config: &Map<String, Value>) -> Option<Self> {
        let text = |config: &Map<String, Value>, key: &str| config.get(key).and_then(Value::as_str).map(str::to_string);
        let class = text(tokenizer_config, "tokenizer_class").or_else(|| text(model_config, "tokenizer_class"))?;
        let model_type = text(model_config, "model_type").unwrap_or_default();
        if class.trim_end_matches("Fast") != "LlamaTokenizer" || OTHER_RULE.contains(&model_type.as_str()) {
            return None;
        }
        let flag = |key: &str| tokenizer_config.get(key).and_then(Value::as_bool);
        Some(LlamaPipeline {
            add_prefix_space: flag("add_prefix_space").unwrap_or(true),
            everywhere: flag("legacy").unwrap_or(false),
            default_tokens: DEFAULT_TOKENS.into_iter().filter(|(name, _)| !tokenizer_config.contains_key(*name)).collect(),
        })
    }

    /// False, with nothing changed, for a vocabulary that is not of SentencePiece's kind.
    pub fn apply(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<bool> {
        if !matches!(tokenizer.get_model(), ModelWrapper::BPE(model) if model.byte_fallback) {
            return Ok(false);
        }
        let scheme = match (self.add_prefix_space, self.everywhere) {
            (false, _) => "never",
            (true, true) => "always",
            (true, false) => "first",
        };
        let pre_tokenizer: PreTokenizerWrapper =
            serde_json::from_value(json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false}))?;
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.add_prefix_space {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let decoder: DecoderWrapper = serde_json::from_value(json!({"type": "Sequence", "decoders": steps}))?;
        tokenizer.with_normalizer(None::<NormalizerWrapper>)?;
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        tokenizer.with_decoder(Some(decoder));
        Ok(true)
    }
}
