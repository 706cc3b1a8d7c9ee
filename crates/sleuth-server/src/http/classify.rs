//! vLLM's `/classify`, and veRL's discriminative reward model over it: a value per response.

use serde::Serialize;
use serde_json::Value;
use sleuth_core::{ErrorClass, Failure, Reason, Scored};
use sleuth_wire::Limits;

use super::chat;
use super::fields::{Fields, expected, text};
use super::picture::Pictures;
use super::pooling::is_raw;
use super::problem::Problem;
use super::prompt;
use super::sample::Sample;

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    pub(super) samples: Vec<Sample>,
    /// Log-odds instead of probabilities.
    pub(super) is_raw: bool,
    /// The field that the samples come from.
    pub(super) field: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    index: usize,
    label: Option<&'static str>,
    probs: [f32; 1],
    num_classes: u32,
}

/// Reads a request's body.
pub(super) fn parse(body: &[u8], limits: &Limits, most: usize) -> Result<Asked, Problem> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?;
    let is_raw = is_raw(&mut fields)?;
    let mut pictures = Pictures::new(limits.max_item_bytes);
    if let Some(messages) = fields.list("messages")? {
        let sample = chat::sample(messages, "messages", &mut pictures)?;
        return Ok(Asked { model, samples: vec![sample], is_raw, field: "messages" });
    }
    let input = fields
        .take("input")
        .ok_or_else(|| Problem::field("messages", "`messages` is missing, and so is `input`"))?;
    let inputs = texts(input)?;
    if inputs.len() > most {
        let message = format!("`input` has {} texts; at most {most} at once", inputs.len());
        return Err(Problem::too_large(Some("input"), message));
    }
    let mut images = per_input(&mut fields, "images", inputs.len())?;
    let mut prompts = per_input(&mut fields, "prompts", inputs.len())?;
    let read = |(path, input): (String, String)| {
        let (image, prompt) = (images.next().flatten(), prompts.next().flatten());
        sample(&input, &path, image.as_deref(), prompt, &mut pictures)
    };
    let samples = inputs.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Asked { model, samples, is_raw, field: "input" })
}

/// The texts of `input`, and where each stands.
fn texts(input: Value) -> Result<Vec<(String, String)>, Problem> {
    match input {
        Value::String(text) => Ok(vec![("input".to_owned(), text)]),
        Value::Array(values) => {
            let named = |(n, value): (usize, Value)| {
                let path = format!("input[{n}]");
                if matches!(value, Value::Number(_) | Value::Array(_)) {
                    let message = "`input` must be text: token ids are not taken";
                    return Err(Problem::field(path, message));
                }
                text(value, &path).map(|text| (path, text))
            };
            values.into_iter().enumerate().map(named).collect()
        }
        other => Err(expected("input", "a string or a list of strings", &other)),
    }
}

fn per_input(
    fields: &mut Fields,
    name: &str,
    n: usize,
) -> Result<impl Iterator<Item = Option<String>> + use<>, Problem> {
    let list = fields.some_texts(name)?;
    match list {
        Some(list) if list.len() != n => {
            let message = format!("`{name}` has {} entries and `input` {n}", list.len());
            Err(Problem::field(name, message))
        }
        list => Ok(list.unwrap_or_default().into_iter()),
    }
}

/// A text with an image beside it, or the JSON of messages that a chat template wrote.
fn sample(
    input: &str,
    path: &str,
    image: Option<&str>,
    prompt: Option<String>,
    pictures: &mut Pictures,
) -> Result<Sample, Problem> {
    if let Some(image) = image {
        let at = path.replacen("input", "images", 1);
        let picture = pictures.read(image).map_err(|f| Problem::of(&f).at(at))?;
        let prompt = prompt.unwrap_or_default();
        let span = prompt::response(input, &prompt).ok_or_else(|| {
            Problem::field(path, format!("`{path}` does not begin with its prompt"))
        })?;
        let response = input.get(span).unwrap_or_default().to_owned();
        let prompt = Some(prompt::without_placeholders(&prompt)).filter(|text| !text.is_empty());
        return Ok(Sample { picture, prompt, response });
    }
    match serde_json::from_str(input.trim()) {
        Ok(Value::Array(messages)) if messages.iter().any(Value::is_object) => {
            chat::sample(messages, path, pictures)
        }
        _ => {
            let message = format!(
                "`{path}` is a text without an image: send `messages` with an image_url part, \
                 `images` beside `input`, or have the chat template write the messages as JSON"
            );
            Err(Problem::field(path, message))
        }
    }
}

// === impl Row ===

impl Row {
    pub(super) fn of(index: usize, scored: &Scored, is_raw: bool) -> Result<Self, Failure> {
        let value = if is_raw { log_odds(scored)? } else { scored.reward };
        Ok(Self { index, label: None, probs: [value], num_classes: 1 })
    }
}

/// `ln(p / (1 - p))` of the response's `mean_log` reward, from its tokens' logits: the reward itself
/// may round to 1.
fn log_odds(scored: &Scored) -> Result<f32, Failure> {
    let ln = |logit: f64| logit.min(0.0) - (-logit.abs()).exp().ln_1p();
    let sum: f64 = scored.tokens.iter().map(|token| ln(f64::from(token.logit))).sum();
    let mean = sum / scored.tokens.len() as f64;
    let value = (mean - (-mean.exp_m1()).ln()) as f32;
    if value.is_finite() {
        return Ok(value);
    }
    let detail = "the response's log-odds are not finite";
    Err(Failure::new(ErrorClass::ModelFailure, Reason::NOT_FINITE, detail))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use sleuth_core::{ByteSpan, ScoreRequest, TokenReward};
    use sleuth_service::fake::WordScorer;
    use sleuth_service::{Caller, Scorer as _};

    use super::*;

    fn read(body: &Value) -> Result<Asked, Problem> {
        parse(body.to_string().as_bytes(), &Limits::default(), 3)
    }

    fn messages() -> Value {
        let image =
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
        json!([
            {"role": "user", "content": [image, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "A ring."},
        ])
    }

    #[test]
    fn messages_their_json_and_texts_with_images_are_the_same_sample() {
        let plain = read(&json!({"messages": messages(), "use_activation": false})).unwrap();
        assert!(plain.is_raw);
        let written = messages().to_string();
        let written = read(&json!({"input": written, "model": "m"})).unwrap();
        assert_eq!(written.samples, plain.samples);
        assert!(!written.is_raw);
        let beside = read(&json!({
            "input": ["<bos>What?A ring.<eos>"], "images": ["AAAA"], "prompts": ["What?"],
        }));
        assert_eq!(beside.unwrap().samples, plain.samples);
    }

    #[test]
    fn what_is_no_request_names_its_field() {
        for (body, status, param) in [
            (json!({}), 400, "messages"),
            (json!({"input": "no image"}), 400, "input"),
            (json!({"input": "[1, 2]"}), 400, "input"),
            (json!({"input": [1, 2]}), 400, "input[0]"),
            (json!({"input": [[1, 2]]}), 400, "input[0]"),
            (json!({"input": {}}), 400, "input"),
            (json!({"input": [messages().to_string(), "no image"]}), 400, "input[1]"),
            (json!({"input": ["a"], "images": []}), 400, "images"),
            (json!({"input": ["a"], "images": ["?"]}), 400, "images[0]"),
            (json!({"input": ["a"], "images": ["AAAA"], "prompts": ["b"]}), 400, "input[0]"),
            (json!({"input": "[{\"role\": 3}]"}), 400, "input[0].role"),
            (json!({"input": ["a", "b", "c", "d"]}), 413, "input"),
        ] {
            let problem = read(&body).unwrap_err();
            assert_eq!((problem.told().0, problem.told().1), (status, Some(param)), "{body}");
        }
    }

    #[tokio::test]
    async fn log_odds_are_those_of_the_reward_and_go_on_where_it_rounds_to_one() {
        let scorer = WordScorer::new(Duration::ZERO);
        let request = ScoreRequest::new(vec![1].into(), "A good ring.");
        let mut scored = scorer.score(&Caller::default(), request).await.unwrap();
        let token = |logit| TokenReward::from_logit(ByteSpan::try_new(0, 1).unwrap(), logit);
        scored.tokens = vec![token(2.0), token(2.0)];
        assert!((log_odds(&scored).unwrap() - 2.0).abs() < 1e-6);
        scored.tokens = vec![token(40.0), token(40.0)];
        assert!((log_odds(&scored).unwrap() - 40.0).abs() < 1e-4);
        scored.tokens = vec![token(-30.0)];
        assert!((log_odds(&scored).unwrap() + 30.0).abs() < 1e-4);
        scored.tokens = vec![token(2000.0)];
        assert_eq!(log_odds(&scored).unwrap_err().reason, Reason::NOT_FINITE);
    }
}
