//! What a model folder says about its tokenizer, in the forms of transformers 4 and 5.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::failure::{Code, Failure, Result};
use crate::llama_pipeline::LlamaPipeline;
use crate::qwen;

/// Vocabularies that need transformers to become a tokenizer.json.
const OTHER_VOCABULARIES: [&str; 4] = ["tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json"];

pub struct TemplateSource {
    pub text: String,
    /// The file, with the key inside it where there is one.
    pub origin: String,
}

/// Tokens that tokenizer_config.json or special_tokens_map.json give a meaning.
#[derive(Default)]
pub struct SpecialTokens {
    /// "bos_token" -> "<s>": what a template may ask for by name.
    pub named: BTreeMap<String, String>,
    /// Tokens without a name.
    pub extra: Vec<String>,
    /// `added_tokens_decoder`, by id.
    pub added: BTreeMap<u32, AddedToken>,
}

pub struct ModelFolder {
    pub tokenizer_file: PathBuf,
    /// The file's content, or what a vocabulary of another kind is as a tokenizer.json.
    pub tokenizer_json: Vec<u8>,
    pub template: Option<TemplateSource>,
    pub special_tokens: SpecialTokens,
    pub llama_pipeline: Option<LlamaPipeline>,
    /// Rows of the embedding, where config.json says so.
    pub vocab_size: Option<u64>,
}

impl ModelFolder {
    /// `template_file` replaces the folder's own template.
    pub fn read(folder: &Path, template_file: Option<&Path>) -> Result<Self> {
        if !folder.is_dir() {
            return Err(not_found("model folder does not exist", folder));
        }
        let tokenizer = read_tokenizer(folder)?;
        let model_config = read_object(&folder.join("config.json"))?.unwrap_or_default();
        let config_file = folder.join("tokenizer_config.json");
        let config = read_object(&config_file)?.unwrap_or_default();
        let template = match template_file {
            Some(file) => Some(template_from_file(file)?.ok_or_else(|| not_found("chat template file does not exist", file))?),
            None => folder_template(folder, &config, &config_file)?.or(tokenizer.built_in_template),
        };
        // transformers reads special_tokens_map.json only for folders whose config does not list its added tokens.
        let map = match config.contains_key("added_tokens_decoder") {
            true => None,
            false => read_object(&folder.join("special_tokens_map.json"))?,
        };
        let special_tokens = special_tokens(&config, map, &config_file)?;
        Ok(ModelFolder {
            tokenizer_file: tokenizer.file,
            tokenizer_json: tokenizer.json,
            template,
            special_tokens,
            llama_pipeline: LlamaPipeline::named_by(&config, &model_config),
            vocab_size: vocab_size(&model_config),
        })
    }
}

struct TokenizerSource {
    file: PathBuf,
    json: Vec<u8>,
    built_in_template: Option<TemplateSource>,
}

fn read_tokenizer(folder: &Path) -> Result<TokenizerSource> {
    let file = folder.join("tokenizer.json");
    if let Some(json) = read_bytes(&file)? {
        return Ok(TokenizerSource { file, json, built_in_template: None });
    }
    let tiktoken_file = folder.join(qwen::VOCABULARY_FILE);
    if let Some(bytes) = read_bytes(&tiktoken_file)? {
        let json = qwen::tokenizer_json(&bytes, &tiktoken_file)?;
        let template =
            TemplateSource { text: qwen::CHAT_TEMPLATE.to_string(), origin: "built-in template of Qwen-1".to_string() };
        return Ok(TokenizerSource { file: tiktoken_file, json, built_in_template: Some(template) });
    }
    match OTHER_VOCABULARIES.iter().find(|name| folder.join(name).exists()) {
        None => Err(not_found("model folder has no tokenizer.json", &file)),
        Some(name) => Err(Failure::new(
            Code::FailedPrecondition,
            format!(
                "model folder has {name} but no tokenizer.json; write one with transformers: python -c \"from transformers import \
                 AutoTokenizer as T; T.from_pretrained('{0}').save_pretrained('{0}')\": folder={0}",
                folder.display()
            ),
        )),
    }
}

/// `vocab_size` of config.json, or of its part for text.
fn vocab_size(config: &Map<String, Value>) -> Option<u64> {
    let of_text = || config.get("text_config")?.get("vocab_size");
    config.get("vocab_size").or_else(of_text)?.as_u64()
}

fn not_found(what: &str, path: &Path) -> Failure {
    Failure::new(Code::NotFound, format!("{what}: path={}", path.display()))
}

/// None if there is no such file.
fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::bad_file("cannot read file", path, error)),
    }
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(Failure::bad_file("bad JSON", path, "want an object")),
        Err(error) => Err(Failure::bad_file("bad JSON", path, error)),
    }
}

fn template_from_file(path: &Path) -> Result<Option<TemplateSource>> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    let text =
        String::from_utf8(bytes).map_err(|error| Failure::bad_file("chat template is not UTF-8", path, error.utf8_error()))?;
    let origin = path.display().to_string();
    Ok(Some(TemplateSource { text, origin }))
}

/// Of the places for the template named "default", the last in the order of transformers.
fn folder_template(folder: &Path, config: &Map<String, Value>, config_file: &Path) -> Result<Option<TemplateSource>> {
    for name in ["additional_chat_templates/default.jinja", "chat_template.jinja"] {
        if let Some(template) = template_from_file(&folder.join(name))? {
            return Ok(Some(template));
        }
    }
    template_from_config(config, config_file)
}

/// `chat_template` is a string, or a list of {"name", "template"} of which the one named "default" counts.
fn template_from_config(config: &Map<String, Value>, file: &Path) -> Result<Option<TemplateSource>> {
    let text = match config.get("chat_template") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Array(entries)) => {
            let field = |entry: &'_ Value, key: &str| entry.get(key)?.as_str().map(str::to_string);
            let default = entries.iter().find(|entry| field(entry, "name").as_deref() == Some("default"));
            match default.map(|entry| entry.get("template")) {
                None => return Ok(None),
                Some(Some(Value::String(text))) => text,
                Some(_) => {
                    let reason = "the entry named default has no template text";
                    return Err(Failure::bad_file("bad chat_template", file, reason));
                }
            }
        }
        Some(_) => {
            let reason = "want a string or a list of {name, template}";
            return Err(Failure::bad_file("bad chat_template", file, reason));
        }
    };
    Ok(Some(TemplateSource { text: text.clone(), origin: format!("{}#chat_template", file.display()) }))
}

fn special_tokens(config: &Map<String, Value>, map: Option<Map<String, Value>>, config_file: &Path) -> Result<SpecialTokens> {
    let mut tokens = SpecialTokens::default();
    for (key, value) in config.iter().chain(map.iter().flatten()) {
        match (key.as_str(), value) {
            ("extra_special_tokens" | "additional_special_tokens", Value::Array(list)) => {
                tokens.extra.extend(list.iter().filter_map(token_text));
            }
            ("extra_special_tokens", Value::Object(by_name)) if !by_name.contains_key("content") => {
                for (name, value) in by_name {
                    tokens.named.extend(token_text(value).map(|text| (name.clone(), text)));
                }
            }
            (name, value) if name.ends_with("_token") => {
                tokens.named.extend(token_text(value).map(|text| (name.to_string(), text)));
            }
            _ => {}
        }
    }
    if let Some(Value::Object(decoder)) = config.get("added_tokens_decoder") {
        for (id, token) in decoder {
            let (Ok(id), Some(token)) = (id.parse(), added_token(token)) else {
                let reason = format!("bad entry of added_tokens_decoder: id={id}");
                return Err(Failure::bad_file("bad JSON", config_file, reason));
            };
            tokens.added.insert(id, token);
        }
    }
    Ok(tokens)
}

/// A token is its text, or an object with the text as "content".
fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => fields.get("content")?.as_str().map(str::to_string),
        _ => None,
    }
}

fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    let token = AddedToken::from(token_text(value)?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}
