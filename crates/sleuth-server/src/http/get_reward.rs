//! `OpenRLHF`'s remote reward server, with images and with what a number cannot tell.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value;
use sleuth_core::{ErrorClass, Failure, Reason, Scored};
use sleuth_wire::Limits;

use super::fields::{Fields, expected};
use super::picture::{Picture, Pictures, is_picture, missing};
use super::problem::Problem;
use super::prompt;
use super::sample::Sample;
use super::work::Outcome;

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    /// A bad one spoils no other.
    pub(super) samples: Vec<Result<Sample, Failure>>,
    /// Where the responses stand in their queries.
    pub(super) spans: Vec<Range<usize>>,
}

/// Lists of one entry per query.
#[derive(Debug, Default, Serialize)]
pub(super) struct Answer {
    rewards: Vec<Option<f32>>,
    scores: Vec<Option<f32>>,
    extra_logs: Logs,
    details: Vec<Detail>,
}

/// Numbers only: the client makes tensors of them.
#[derive(Debug, Default, Serialize)]
struct Logs {
    sleuth_valid: Vec<f32>,
    flagged_tokens: Vec<f32>,
    tokens: Vec<f32>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Detail {
    Valid {
        valid: bool,
        version: String,
        response: Place,
        tokens: Vec<Token>,
    },
    Invalid {
        valid: bool,
        class: &'static str,
        reason: &'static str,
        detail: String,
        field: Option<String>,
        retryable: bool,
    },
}

/// Bytes of a query.
#[derive(Debug, Serialize)]
struct Place {
    start: usize,
    end: usize,
}

/// Bytes of the response, and what its token got.
#[derive(Debug, Serialize)]
struct Token {
    start: u32,
    end: u32,
    reward: f32,
    logit: f32,
}

/// Reads a request's body.
pub(super) fn parse(body: &[u8], limits: &Limits, most: usize) -> Result<Asked, Problem> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?;
    let queries = fields.texts("query")?;
    let queries = queries
        .ok_or_else(|| Problem::field("query", "`query` is missing: a list of whole texts"))?;
    let n = queries.len();
    if n > most {
        let message = format!("`query` has {n} texts; at most {most} at once");
        return Err(Problem::too_large(Some("query"), message));
    }
    let prompts = of_length(fields.some_texts("prompts")?, n, "prompts")?;
    let seen = of_length(fields.some_texts("reward_prompts")?, n, "reward_prompts")?;
    let labels = of_length(fields.list("labels")?, n, "labels")?;
    let images = of_length(fields.some_texts("images")?, n, "images")?;
    let mut prompts = prompts.unwrap_or_default().into_iter();
    let mut seen = seen.unwrap_or_default().into_iter();
    let mut labels = labels.unwrap_or_default().into_iter();
    let mut images = images.unwrap_or_default().into_iter();
    let mut pictures = Pictures::new(limits.max_item_bytes);
    let mut asked = Asked { model, samples: Vec::with_capacity(n), spans: Vec::with_capacity(n) };
    for (index, query) in queries.into_iter().enumerate() {
        let prompt = prompts.next().flatten().unwrap_or_default();
        let image = images.next().flatten();
        let label = labels.next().unwrap_or(Value::Null);
        let picture = picture(image, label, index, &mut pictures)?;
        let span = prompt::response(&query, &prompt);
        asked.spans.push(span.clone().unwrap_or(0..0));
        let asks = seen.next().flatten();
        asked.samples.push(picture.and_then(|picture| {
            let span = span.ok_or_else(not_its_prompt)?;
            let asks = asks.unwrap_or_else(|| prompt::without_placeholders(&prompt));
            let response = query.get(span).unwrap_or_default().to_owned();
            Ok(Sample { picture, prompt: (!asks.is_empty()).then_some(asks), response })
        }));
    }
    Ok(asked)
}

/// A sample's image: of `images`, else in its label, as that is all that a client without images
/// can send.
fn picture(
    image: Option<String>,
    label: Value,
    index: usize,
    pictures: &mut Pictures,
) -> Result<Result<Picture, Failure>, Problem> {
    let named = match (image, label) {
        (Some(image), _) => Some(image),
        (None, Value::String(label)) if is_picture(&label) => Some(label),
        (None, Value::Object(mut label)) => match label.remove("image") {
            None | Some(Value::Null) => None,
            Some(Value::String(image)) => Some(image),
            Some(other) => {
                return Err(expected(&format!("labels[{index}].image"), "a string", &other));
            }
        },
        (None, _) => None,
    };
    Ok(match named {
        Some(image) => pictures.read(&image),
        None => Err(missing("the sample has no image: send `images`, or put it in the label")),
    })
}

/// A list that is there has an entry per query.
fn of_length<T>(list: Option<Vec<T>>, n: usize, name: &str) -> Result<Option<Vec<T>>, Problem> {
    match list {
        Some(list) if list.len() != n => {
            let message = format!("`{name}` has {} entries and `query` {n}", list.len());
            Err(Problem::field(name, message))
        }
        list => Ok(list),
    }
}

fn not_its_prompt() -> Failure {
    let detail = "the query does not begin with its prompt, so that its response is not known";
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at("response")
}

// === impl Answer ===

impl Answer {
    /// Of outcomes in the order of the queries. `threshold`: a token is flagged that is not above.
    pub(super) fn of(outcomes: Vec<Outcome>, spans: Vec<Range<usize>>, threshold: f32) -> Self {
        let mut answer = Self::default();
        for (index, (outcome, span)) in outcomes.into_iter().zip(spans).enumerate() {
            match outcome {
                Ok(scored) => answer.valid(scored, span, threshold),
                Err(failure) => answer.invalid(&failure, index),
            }
        }
        answer
    }

    fn valid(&mut self, scored: Scored, span: Range<usize>, threshold: f32) {
        let flagged = scored.tokens.iter().filter(|token| !token.is_good(threshold)).count();
        self.rewards.push(Some(scored.reward));
        self.scores.push(Some(scored.reward));
        self.extra_logs.sleuth_valid.push(1.0);
        self.extra_logs.flagged_tokens.push(flagged as f32);
        self.extra_logs.tokens.push(scored.tokens.len() as f32);
        let token = |token: &sleuth_core::TokenReward| Token {
            start: token.span.start(),
            end: token.span.end(),
            reward: token.reward,
            logit: token.logit,
        };
        self.details.push(Detail::Valid {
            valid: true,
            tokens: scored.tokens.iter().map(token).collect(),
            version: scored.version,
            response: Place { start: span.start, end: span.end },
        });
    }

    fn invalid(&mut self, failure: &Failure, index: usize) {
        self.rewards.push(None);
        self.scores.push(None);
        self.extra_logs.sleuth_valid.push(0.0);
        self.extra_logs.flagged_tokens.push(0.0);
        self.extra_logs.tokens.push(0.0);
        self.details.push(Detail::Invalid {
            valid: false,
            class: failure.class.name(),
            reason: failure.reason.name(),
            detail: failure.detail.clone(),
            field: failure.field.map(|field| format!("{}[{index}]", name_of(field))),
            retryable: failure.is_retryable(),
        });
    }
}

/// How this contract calls a part of an item.
fn name_of(field: &str) -> &'static str {
    if field.contains("image") {
        "images"
    } else if field.contains("prompt") {
        "prompts"
    } else {
        "query"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Asked, Problem> {
        parse(body.to_string().as_bytes(), &Limits::default(), 4)
    }

    #[test]
    fn empty_lists_are_a_request() {
        let asked = read(&json!({"query": [], "prompts": [], "labels": []})).unwrap();
        assert!(asked.samples.is_empty());
        let answer = serde_json::to_value(Answer::of(Vec::new(), Vec::new(), 0.5)).unwrap();
        let logs = json!({"sleuth_valid": [], "flagged_tokens": [], "tokens": []});
        let expected = json!({"rewards": [], "scores": [], "extra_logs": logs, "details": []});
        assert_eq!(answer, expected);
    }

    #[test]
    fn each_sample_has_its_prompt_its_image_and_its_response() {
        let asked = read(&json!({
            "query": ["<bos><image><image>Say it.There.<eos>", "Say it.There.", "No.", "It is."],
            "prompts": ["<image>Say it.", "Say it.", "Say it.", null],
            "labels": ["gold", "data:image/png;base64,AAAA", null, {"image": "BBBB"}],
            "images": ["AAAA", null, "AAAA", null],
            "reward_prompts": [null, "Describe.", null, null],
            "more": {"ignored": true},
        }))
        .unwrap();
        let sample = |n: usize| asked.samples[n].as_ref().unwrap();
        assert_eq!(sample(0).prompt.as_deref(), Some("Say it."));
        assert_eq!(sample(0).response, "There.");
        assert_eq!(asked.spans[0], 26..32);
        assert_eq!(sample(1).prompt.as_deref(), Some("Describe."));
        assert_eq!(sample(1).picture, sample(0).picture);
        let failure = asked.samples[2].as_ref().unwrap_err();
        assert!(failure.detail.contains("does not begin with its prompt"));
        assert_eq!((sample(3).prompt.as_deref(), sample(3).response.as_str()), (None, "It is."));
    }

    #[test]
    fn what_is_no_request_names_its_field() {
        for (body, status, param) in [
            (json!([]), 400, "body"),
            (json!({}), 400, "query"),
            (json!({"query": "text"}), 400, "query"),
            (json!({"query": [1]}), 400, "query[0]"),
            (json!({"query": ["a"], "prompts": []}), 400, "prompts"),
            (json!({"query": ["a"], "prompts": [1]}), 400, "prompts[0]"),
            (json!({"query": ["a"], "images": "AAAA"}), 400, "images"),
            (json!({"query": ["a"], "images": [[]]}), 400, "images[0]"),
            (json!({"query": ["a"], "labels": 3}), 400, "labels"),
            (json!({"query": ["a"], "labels": [{"image": 3}]}), 400, "labels[0].image"),
            (json!({"query": ["a", "b", "c", "d", "e"]}), 413, "query"),
            (json!({"query": [], "model": 3}), 400, "model"),
        ] {
            let problem = read(&body).unwrap_err();
            assert_eq!((problem.told().0, problem.told().1), (status, Some(param)), "{body}");
        }
    }

    #[test]
    fn an_invalid_sample_is_null_and_never_a_number() {
        let outcomes = vec![Err(missing("no image"))];
        let answer =
            serde_json::to_value(Answer::of(outcomes, vec![Range::default()], 0.5)).unwrap();
        assert_eq!(answer["rewards"], json!([null]));
        assert_eq!(answer["scores"], json!([null]));
        assert_eq!(answer["extra_logs"]["sleuth_valid"], json!([0.0]));
        assert_eq!(
            answer["details"][0],
            json!({"valid": false, "class": "invalid_request", "reason": "image_missing",
                   "detail": "no image", "field": "images[0]", "retryable": false})
        );
    }
}
