//! A model's tokenizer with its chat template.

use std::path::Path;

use tokenizers::{AddedToken, Tokenizer};

use crate::failure::{Code, Failure, Result};
use crate::model_folder::{ModelFolder, SpecialTokens};
use crate::template::{ChatTemplate, Message};

pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    special_tokens: SpecialTokens,
    vocab_size: Option<u64>,
    folder: String,
}

impl ChatTokenizer {
    pub fn load(folder: &Path, template_file: Option<&Path>) -> Result<Self> {
        let mut model = ModelFolder::read(folder, template_file)?;
        let bad_tokenizer = |error: tokenizers::Error| Failure::bad_file("bad tokenizer.json", &model.tokenizer_file, error);
        let mut tokenizer = Tokenizer::from_bytes(&model.tokenizer_json).map_err(bad_tokenizer)?;
        // What a file stores for batches of another program must not change ours.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(bad_tokenizer)?;
        if let Some(pipeline) = &model.llama_pipeline {
            if pipeline.apply(&mut tokenizer).map_err(bad_tokenizer)? {
                for (name, token) in &pipeline.default_tokens {
                    model.special_tokens.named.entry(name.to_string()).or_insert(token.to_string());
                }
            }
        }
        add_missing_tokens(&mut tokenizer, &model.special_tokens).map_err(bad_tokenizer)?;
        Ok(ChatTokenizer {
            tokenizer,
            template: model.template.map(ChatTemplate::parse).transpose()?,
            special_tokens: model.special_tokens,
            vocab_size: model.vocab_size,
            folder: folder.display().to_string(),
        })
    }

    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        match &self.template {
            Some(template) => template.render(messages, &self.special_tokens, add_generation_prompt),
            None => Err(Failure::new(
                Code::FailedPrecondition,
                format!(
                    "model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); \
                     name a template file: folder={}",
                    self.folder
                ),
            )),
        }
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, add_special_tokens)
            .map_err(|error| Failure::invalid(format!("cannot tokenize text: reason={error}")))?;
        match encoding.get_ids().iter().find(|&&id| self.is_beyond_the_model(id)) {
            None => Ok(encoding.get_ids().iter().map(|&id| id as i32).collect()),
            Some(&id) => Err(Failure::invalid(format!(
                "text has a token for which the model has no embedding: token={:?} id={id} vocab_size={} folder={}",
                self.tokenizer.id_to_token(id).unwrap_or_default(),
                self.vocab_size.unwrap_or_default(),
                self.folder
            ))),
        }
    }

    /// Folders may add tokens to the tokenizer without rows in the embedding.
    fn is_beyond_the_model(&self, id: u32) -> bool {
        self.vocab_size.is_some_and(|size| u64::from(id) >= size) || i32::try_from(id).is_err()
    }

    /// Ids beyond the vocabulary are left out, as transformers does: models pad their vocabulary.
    pub fn decode(&self, ids: &[i32], skip_special_tokens: bool) -> Result<String> {
        let ids = ids.iter().map(|&id| token_id(id)).collect::<Result<Vec<u32>>>()?;
        self.tokenizer
            .decode(&ids, skip_special_tokens)
            .map_err(|error| Failure::invalid(format!("cannot decode tokens: reason={error}")))
    }

    pub fn token_text(&self, id: i32) -> Result<String> {
        if self.tokenizer.id_to_token(token_id(id)?).is_none() {
            return Err(Failure::invalid(format!(
                "token id is not in the vocabulary: id={id} vocabulary={}",
                self.tokenizer.get_vocab_size(true)
            )));
        }
        let once = self.decode(&[id], false)?;
        // Some decoders drop the space before the first word of a text; the second of two shows it.
        let twice = self.decode(&[id, id], false)?;
        match twice.strip_prefix(&once) {
            Some(second) if second.trim_start() == once => Ok(second.to_string()),
            _ => Ok(once),
        }
    }

    pub fn token_to_id(&self, token: &str) -> Option<i32> {
        self.tokenizer.token_to_id(token).map(|id| id as i32)
    }
}

fn token_id(id: i32) -> Result<u32> {
    u32::try_from(id).map_err(|_| Failure::invalid(format!("token id is negative: id={id}")))
}

/// Adds what the configuration names and tokenizer.json does not hold, in the order of transformers, which decides new ids.
fn add_missing_tokens(tokenizer: &mut Tokenizer, special_tokens: &SpecialTokens) -> tokenizers::Result<()> {
    let present = tokenizer.get_added_tokens_decoder();
    let mut missing: Vec<AddedToken> = special_tokens
        .added
        .iter()
        .filter(|(id, token)| present.get(id) != Some(token))
        .map(|(_, token)| token.clone())
        .collect();
    let is_known = |text: &str, missing: &[AddedToken]| {
        missing.iter().any(|token| token.content == text) || present.values().any(|token| token.content == text)
    };
    let named = STANDARD_NAMES
        .iter()
        .filter_map(|name| special_tokens.named.get(*name))
        .chain(special_tokens.named.values())
        .chain(&special_tokens.extra);
    for text in named {
        if !is_known(text, &missing) {
            missing.push(AddedToken::from(text.clone(), true));
        }
    }
    tokenizer.add_tokens(missing)?;
    Ok(())
}

const STANDARD_NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
