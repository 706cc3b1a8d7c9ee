//! vLLM's `/pooling`: a value per token of the response.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sleuth_core::Scored;
use sleuth_wire::Limits;

use super::chat;
use super::fields::Fields;
use super::picture::Pictures;
use super::problem::Problem;
use super::sample::Sample;

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    pub(super) sample: Sample,
    pub(super) form: Form,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Logits instead of probabilities.
    pub(super) is_raw: bool,
    /// Little-endian f32 in base64 instead of numbers.
    pub(super) is_base64: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    index: usize,
    object: &'static str,
    data: Values,
    /// Where each value's token stands in the response, in bytes.
    offsets: Vec<[u32; 2]>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Values {
    Numbers(Vec<[f32; 1]>),
    Base64(String),
}

/// Reads a request's body.
pub(super) fn parse(body: &[u8], limits: &Limits) -> Result<Asked, Problem> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?;
    only(&mut fields, "task", &["token_classify"])?;
    only(&mut fields, "embed_dtype", &["float32"])?;
    only(&mut fields, "endianness", &["native", "little"])?;
    let encoding = only(&mut fields, "encoding_format", &["float", "base64"])?;
    let is_raw = is_raw(&mut fields)?;
    if fields.take("input").is_some() {
        let message = "`input` has no image: send `messages` with an image_url part in the \
                       user's message and the response as the assistant's";
        return Err(Problem::field("input", message));
    }
    let messages = fields.list("messages")?;
    let messages = messages.ok_or_else(|| Problem::field("messages", "`messages` is missing"))?;
    let sample = chat::sample(messages, "messages", &mut Pictures::new(limits.max_item_bytes))?;
    let is_base64 = encoding.as_deref() == Some("base64");
    Ok(Asked { model, sample, form: Form { is_raw, is_base64 } })
}

/// Whether logits are asked for, by today's name or by that of older clients.
pub(super) fn is_raw(fields: &mut Fields) -> Result<bool, Problem> {
    let (now, before) = (fields.switch("use_activation")?, fields.switch("activation")?);
    Ok(now.or(before) == Some(false))
}

/// A choice of which some are offered.
fn only(fields: &mut Fields, name: &str, offered: &[&str]) -> Result<Option<String>, Problem> {
    let said = fields.text(name)?;
    match said.as_deref() {
        Some(said) if !offered.contains(&said) => {
            let message = format!("`{name}` must be {}", offered.join(" or "));
            Err(Problem::field(name, message))
        }
        _ => Ok(said),
    }
}

// === impl Row ===

impl Row {
    pub(super) fn of(scored: &Scored, form: Form) -> Self {
        let tokens = &scored.tokens;
        let values = tokens.iter().map(|t| if form.is_raw { t.logit } else { t.reward });
        let data = if form.is_base64 {
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            Values::Base64(STANDARD.encode(bytes))
        } else {
            Values::Numbers(values.map(|value| [value]).collect())
        };
        let offsets = tokens.iter().map(|t| [t.span.start(), t.span.end()]).collect();
        Self { index: 0, object: "pooling", data, offsets }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(more: Value) -> Value {
        let image =
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
        let mut body = json!({"messages": [
            {"role": "user", "content": [image]},
            {"role": "assistant", "content": "A ring."},
        ]});
        let Value::Object(more) = more else { panic!("an object") };
        body.as_object_mut().unwrap().extend(more);
        body
    }

    fn read(body: &Value) -> Result<Asked, Problem> {
        parse(body.to_string().as_bytes(), &Limits::default())
    }

    #[test]
    fn the_form_is_as_it_is_asked_for() {
        let form = |more| read(&body(more)).unwrap().form;
        let plain = Form { is_raw: false, is_base64: false };
        assert_eq!(form(json!({"task": "token_classify", "priority": 3})), plain);
        assert_eq!(form(json!({"use_activation": null, "encoding_format": "float"})), plain);
        assert_eq!(form(json!({"use_activation": true, "activation": false})), plain);
        let raw = Form { is_raw: true, ..plain };
        assert_eq!(form(json!({"use_activation": false})), raw);
        assert_eq!(form(json!({"activation": false})), raw);
        assert!(form(json!({"encoding_format": "base64"})).is_base64);
    }

    #[test]
    fn what_is_not_offered_is_named() {
        for (more, param) in [
            (json!({"task": "embed"}), "task"),
            (json!({"task": 3}), "task"),
            (json!({"encoding_format": "bytes"}), "encoding_format"),
            (json!({"embed_dtype": "float16"}), "embed_dtype"),
            (json!({"endianness": "big"}), "endianness"),
            (json!({"use_activation": "no"}), "use_activation"),
            (json!({"input": "text"}), "input"),
            (json!({"messages": null}), "messages"),
            (json!({"messages": {}}), "messages"),
        ] {
            let problem = read(&body(more.clone())).unwrap_err();
            assert_eq!((problem.told().0, problem.told().1), (400, Some(param)), "{more}");
        }
    }
}
