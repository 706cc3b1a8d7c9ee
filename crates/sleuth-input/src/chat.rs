//! A model's chat template: what stands before and after a prompt.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Deserialize;
use serde_json::Value;

use crate::FolderError;

/// What a model puts around the text of a prompt, special tokens spelled out. The response comes
/// after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// Steps that a template may take: one with an endless loop must not stop a server from starting.
const FUEL: u64 = 1_000_000;
/// A text that no template makes by itself.
const PLACE: &str = "\u{e000}prompt\u{e001}";

#[derive(Deserialize)]
struct File {
    chat_template: Option<Value>,
}

// === impl Frame ===

impl Frame {
    /// Mllama without a template, as `MllamaProcessor` builds a text: the image, then the start.
    pub(crate) fn bare_mllama() -> Self {
        Self { before: "<|image|><|begin_of_text|>".to_owned(), after: String::new() }
    }

    /// By the folder's template (`chat_template.jinja`, `chat_template.json`, or inside
    /// `tokenizer_config.json`, in this order) for one message of a user that holds an image and a
    /// text, and a reply to come; `None` where the folder has no template.
    pub(crate) fn from_folder(
        folder: &Path,
        bos: &str,
        eos: &str,
    ) -> Result<Option<Self>, FolderError> {
        let plain = folder.join("chat_template.jinja");
        if plain.exists() {
            let file = "chat_template.jinja";
            let text = String::from_utf8(crate::prepare::read(&plain)?)
                .map_err(|_| invalid(file, "is not UTF-8"))?;
            return Self::render(&text, bos, eos).map(Some).map_err(|p| invalid(file, p));
        }
        for file in ["chat_template.json", "tokenizer_config.json"] {
            let path = folder.join(file);
            if !path.exists() {
                continue;
            }
            let parsed: File = serde_json::from_slice(&crate::prepare::read(&path)?)
                .map_err(|e| invalid(file, e.to_string()))?;
            let Some(template) = parsed.chat_template.filter(|value| !value.is_null()) else {
                continue;
            };
            let text = text_of(&template).ok_or_else(|| {
                invalid(file, "`chat_template` must be a text, or a list with one named `default`")
            })?;
            return Self::render(text, bos, eos).map(Some).map_err(|p| invalid(file, p));
        }
        Ok(None)
    }

    /// As transformers renders it: blocks are trimmed, `raise_exception` and the special tokens are
    /// there; there is no clock, so a template that wants the date falls back on its own.
    fn render(template: &str, bos: &str, eos: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| e.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let messages = serde_json::json!([{
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": PLACE}],
        }]);
        let values = context! {
            messages => Serde(messages), bos_token => bos, eos_token => eos, add_generation_prompt => true,
        };
        let text = environment
            .render_str(template, values)
            .map_err(|e| format!("the chat template fails: {e}"))?;
        match text.split(PLACE).collect::<Vec<_>>().as_slice() {
            [before, after] => {
                Ok(Self { before: (*before).to_owned(), after: (*after).to_owned() })
            }
            parts => Err(format!("the chat template gives the prompt {} times", parts.len() - 1)),
        }
    }
}

fn text_of(template: &Value) -> Option<&str> {
    let named = |value: &Value| value["name"] == "default";
    match template {
        Value::String(text) => Some(text),
        Value::Array(list) => list.iter().find(|v| named(v)).and_then(|v| v["template"].as_str()),
        _ => None,
    }
}

fn invalid(file: &'static str, problem: impl Into<String>) -> FolderError {
    FolderError::ChatTemplate { file, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = \"26 Jul 2024\" %}
{%- endif %}
{%- set image_ns = namespace(has_images=false) %}
{%- for message in messages %}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
            {%- set image_ns.has_images = true %}
        {%- endif %}
    {%- endfor %}
{%- endfor %}
{%- if messages[0]['role'] == 'system' and image_ns.has_images %}
    {{- raise_exception(\"no system message with images\") }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- for content in message['content'] %}
        {%- if content['type'] == 'image' %}
            {{- '<|image|>' }}
        {%- elif content['type'] == 'text' %}
            {{- content['text'] }}
        {%- endif %}
    {%- endfor %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
";

    fn render(template: &str) -> Result<Frame, String> {
        Frame::render(template, "<|begin_of_text|>", "<|eot_id|>")
    }

    #[test]
    fn a_template_like_llamas_gives_what_stands_around_the_prompt() {
        let frame = render(TEMPLATE).unwrap();
        assert_eq!(
            frame.before,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>"
        );
        assert_eq!(frame.after, "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    }

    #[test]
    fn a_template_that_fails_or_loses_the_prompt_is_refused() {
        let raises = "{{ raise_exception('no images, please') }}";
        assert!(render(raises).unwrap_err().contains("no images, please"));
        assert!(render("{{ messages[0]['role'] }}").unwrap_err().contains("0 times"));
        assert!(render("{% for x in %}").unwrap_err().contains("fails"));
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(render(endless).is_err());
    }

    #[test]
    fn the_folder_says_where_the_template_is() {
        let folder = tempfile::tempdir().unwrap();
        let of = || Frame::from_folder(folder.path(), "<s>", "</s>");
        assert_eq!(of().unwrap(), None);
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("tokenizer_config.json", r#"{"chat_template": null}"#);
        assert_eq!(of().unwrap(), None);
        write("tokenizer_config.json", r#"{"chat_template": 7}"#);
        assert!(of().unwrap_err().to_string().contains("tokenizer_config.json"));
        write(
            "chat_template.json",
            r#"{"chat_template": "a{{ messages[0]['content'][1]['text'] }}b"}"#,
        );
        let frame = of().unwrap().unwrap();
        assert_eq!((frame.before.as_str(), frame.after.as_str()), ("a", "b"));
        write("chat_template.jinja", "{{ bos_token }}{{ messages[0].content[1].text }}");
        assert_eq!(of().unwrap().unwrap().before, "<s>");
    }
}
