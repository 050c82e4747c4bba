//! A chat template, rendered as transformers renders it with jinja2.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Rest;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use crate::failure::{Code, Failure, Result};
use crate::model_folder::{SpecialTokens, TemplateSource};
use crate::{python_text, tojson};

/// Instructions a rendering may take: a thousand long turns need well under a tenth, a runaway loop ends within a second.
const FUEL: u64 = 20_000_000;
/// Several times the longest template published. Nested expressions take stack in proportion to the text.
const MAX_BYTES: usize = 128 << 10;
/// For parsing: enough for the deepest nesting that MAX_BYTES allow. Only what is touched becomes memory.
const PARSER_STACK_BYTES: usize = 256 << 20;
const NAME: &str = "chat_template";

pub struct Message<'a> {
    pub role: &'a str,
    pub content: &'a str,
}

pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Where the template came from, for errors.
    origin: String,
}

/// Marks an error as the template's own (`raise_exception`), so that its text is shown alone.
#[derive(Debug)]
struct RaisedByTemplate;

impl fmt::Display for RaisedByTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for RaisedByTemplate {}

impl ChatTemplate {
    pub fn parse(source: TemplateSource) -> Result<Self> {
        if source.text.len() > MAX_BYTES {
            let text =
                format!("chat template is too long: bytes={} limit={MAX_BYTES} file={}", source.text.len(), source.origin);
            return Err(Failure::invalid(text));
        }
        let mut environment = Environment::new();
        environment.set_syntax(white_space()?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python_text::call_method);
        environment.add_filter("tojson", tojson::tojson);
        environment.add_filter("trim", |value: &Value, args: Rest<Value>| python_text::trim(value, &args));
        environment.add_filter("indent", python_text::indent);
        environment.add_function("strftime_now", python_text::strftime_now);
        environment.add_function("raise_exception", raise_exception);

        let text = without_generation_tags(&source.text.replace("\r\n", "\n").replace('\r', "\n"));
        on_a_large_stack(|| environment.add_template_owned(NAME, text))?.map_err(|error| {
            Failure::invalid(format!("chat template does not parse: {}: {}", describe(&error), place(&source.origin, &error)))
        })?;
        Ok(ChatTemplate { environment, origin: source.origin })
    }

    pub fn render(&self, messages: &[Message], special_tokens: &SpecialTokens, add_generation_prompt: bool) -> Result<String> {
        if messages.is_empty() {
            return Err(Failure::invalid("a conversation needs at least one message: messages=0"));
        }
        let messages: Vec<Value> =
            messages.iter().map(|message| Value::from_pairs([("role", message.role), ("content", message.content)])).collect();
        let named = special_tokens.named.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        // transformers passes tools and documents as None, so templates see them as defined.
        let given = [
            ("messages", Value::from(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ];
        let context = Value::from_pairs(named.chain(given));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|error| self.render_failure(&error))
    }

    fn render_failure(&self, error: &Error) -> Failure {
        let place = place(&self.origin, error);
        if raised(error) {
            let text = error.detail().unwrap_or_default();
            return Failure::invalid(format!("{text}: raised by the chat template: {place}"));
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return Failure::new(Code::ResourceExhausted, format!("chat template takes too many steps: limit={FUEL} {place}"));
        }
        Failure::invalid(format!("chat template fails: {}: {place}", describe(error)))
    }
}

/// minijinja limits the nesting of statements and brackets, but not that of operators and `elif`.
fn on_a_large_stack<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn_scoped(scope, body);
        let failed = |reason: String| Failure::new(Code::Internal, format!("cannot parse the chat template: reason={reason}"));
        thread.map_err(|error| failed(error.to_string()))?.join().map_err(|_| failed("the parser failed".to_string()))
    })
}

/// The white space settings of transformers' jinja2 environment.
fn white_space() -> Result<SyntaxConfig> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(false)
        .build()
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

fn raise_exception(text: String) -> std::result::Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, text).with_source(RaisedByTemplate))
}

/// An error of a macro's body is wrapped by the call's, so the whole chain is looked at.
fn raised(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<RaisedByTemplate>() {
            return true;
        }
        source = cause.source();
    }
    false
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn place(origin: &str, error: &Error) -> String {
    match error.line() {
        Some(line) => format!("file={origin} line={line}"),
        None => format!("file={origin}"),
    }
}

/// `{% generation %}` only marks the assistant's text for training masks. It becomes an empty `with`, not nothing: jinja2 gives
/// the block a scope of its own, and the white space around a tag is trimmed as before.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[..end];
        let word = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let replacement = match word {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&inner.replacen(word, replacement, 1));
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}
