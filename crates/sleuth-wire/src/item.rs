use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use sleuth_core::{ErrorClass, Failure, Reason, ScoreRequest};
use sleuth_proto::v1;

use crate::limits::{MAX_NAME_BYTES, MAX_TRACEPARENT_BYTES, MAX_TRACESTATE_BYTES};
use crate::{Limits, encode_options, options, utf8_text};

/// Names one attempt at one item of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemKey {
    /// Chosen by the caller; 1 to 256 bytes.
    pub item_id: String,
    /// Which attempt.
    pub attempt: u32,
}

/// The rollouts of one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// 1 to 256 bytes.
    pub id: String,
    /// Members the caller means to send, if known.
    pub size: Option<u32>,
    /// Tokens expected per response, if known.
    pub expected_response_tokens: Option<u32>,
}

/// W3C trace context as the caller sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`; may be empty.
    pub state: String,
}

/// A whole item that keeps every limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedItem {
    /// What to score.
    pub request: ScoreRequest<Bytes>,
    /// The rollouts it belongs to.
    pub group: Option<Group>,
    /// Joins repeated requests for the same work.
    pub idempotency_key: Option<String>,
    /// The caller's trace.
    pub trace: Option<Trace>,
}

/// Parses a stream item's key; required there.
pub fn key(wire: Option<&v1::Key>) -> Result<ItemKey, Failure> {
    const FIELD: &str = "context.key.item_id";
    let wire = wire.filter(|k| !k.item_id.is_empty()).ok_or_else(|| {
        Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_MISSING, "a key names the item")
            .at(FIELD)
    })?;
    at_most(&wire.item_id, MAX_NAME_BYTES, FIELD)?;
    Ok(ItemKey { item_id: wire.item_id.clone(), attempt: wire.attempt })
}

/// Parses a whole item; its key is parsed apart, so that a verdict can name it whatever is wrong.
///
/// Fields in failures are relative to the item, such as `context.image`;
/// [`Place::path`](crate::Place::path) completes them.
pub fn item(wire: v1::Item, limits: &Limits) -> Result<ParsedItem, Failure> {
    let size = wire.encoded_len();
    if wire.policy.as_ref().is_some_and(|p| !p.byte_end.is_empty() || !p.piece.is_empty()) {
        let detail = "rewards per policy token are not offered; send the item without them";
        return Err(Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail).at("policy"));
    }
    let context = wire.context.unwrap_or_default();
    let response = response(wire.response, limits)?;
    let image = image(context.image, limits)?;
    let prompt = context.prompt.map(|p| prompt(p, limits)).transpose()?;
    if size > limits.max_item_bytes {
        let detail = format!("the item has {size} bytes; at most {}", limits.max_item_bytes);
        return Err(Failure::new(ErrorClass::TooLarge, Reason::ITEM_TOO_LARGE, detail));
    }
    let request = ScoreRequest {
        image,
        prompt,
        response,
        adapter: name(context.adapter, "context.adapter")?,
        required_version: name(context.required_version, "context.required_version")?,
        options: options(context.options.as_ref())?,
        timeout: timeout(context.timeout.as_ref())?,
        priority: context.priority,
    };
    Ok(ParsedItem {
        request,
        group: context.group.map(group).transpose()?,
        idempotency_key: name(context.idempotency_key, "context.idempotency_key")?,
        trace: trace(context.traceparent, context.tracestate)?,
    })
}

/// The inverse of [`item`] for a request without group, idempotency key and trace.
pub fn encode_item(key: Option<v1::Key>, request: ScoreRequest<Bytes>) -> v1::Item {
    let context = v1::Context {
        key,
        timeout: request.timeout.and_then(|t| t.try_into().ok()),
        priority: request.priority,
        adapter: request.adapter.unwrap_or_default(),
        required_version: request.required_version.unwrap_or_default(),
        image: Some(v1::Image { source: Some(v1::image::Source::Data(request.image)) }),
        prompt: request.prompt.map(Bytes::from),
        options: Some(encode_options(&request.options)),
        ..v1::Context::default()
    };
    v1::Item { context: Some(context), response: Bytes::from(request.response), policy: None }
}

/// Parses an item's timeout: at least 0.
pub fn timeout(wire: Option<&prost_types::Duration>) -> Result<Option<Duration>, Failure> {
    let Some(wire) = wire else { return Ok(None) };
    let nanos = u32::try_from(wire.nanos).ok().filter(|n| *n < 1_000_000_000);
    match (u64::try_from(wire.seconds), nanos) {
        (Ok(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(invalid("a timeout is not negative", "context.timeout")),
    }
}

fn response(bytes: Bytes, limits: &Limits) -> Result<String, Failure> {
    const FIELD: &str = "response";
    if bytes.is_empty() {
        let detail = "the response is empty; there is nothing to score";
        return Err(
            Failure::new(ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY, detail).at(FIELD)
        );
    }
    within(&bytes, limits.max_response_bytes, Reason::RESPONSE_TOO_LARGE, FIELD)?;
    utf8_text(bytes, Reason::RESPONSE_NOT_UTF8, FIELD)
}

fn prompt(bytes: Bytes, limits: &Limits) -> Result<String, Failure> {
    const FIELD: &str = "context.prompt";
    within(&bytes, limits.max_prompt_bytes, Reason::PROMPT_TOO_LARGE, FIELD)?;
    utf8_text(bytes, Reason::PROMPT_NOT_UTF8, FIELD)
}

fn image(wire: Option<v1::Image>, limits: &Limits) -> Result<Bytes, Failure> {
    const FIELD: &str = "context.image";
    match wire.and_then(|i| i.source) {
        Some(v1::image::Source::Data(data)) if !data.is_empty() => {
            within(&data, limits.max_item_bytes, Reason::IMAGE_TOO_LARGE, FIELD)?;
            Ok(data)
        }
        Some(v1::image::Source::Blake3(digest)) if digest.len() == 32 => {
            let detail = "no image of that digest is held here; send its data";
            Err(Failure::new(ErrorClass::Unknown, Reason::IMAGE_UNKNOWN, detail)
                .at("context.image.blake3"))
        }
        Some(v1::image::Source::Blake3(digest)) => {
            let detail = format!("a BLAKE3 digest has 32 bytes, not {}", digest.len());
            Err(invalid(detail, "context.image.blake3"))
        }
        Some(v1::image::Source::Data(_)) | None => {
            let detail = "an item needs an image";
            Err(Failure::new(ErrorClass::InvalidRequest, Reason::IMAGE_MISSING, detail).at(FIELD))
        }
    }
}

fn group(wire: v1::Group) -> Result<Group, Failure> {
    let id = name(wire.id, "context.group.id")?.ok_or_else(|| {
        Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_MISSING, "a group has an id")
            .at("context.group.id")
    })?;
    let known = |n: u32| (n > 0).then_some(n);
    Ok(Group {
        id,
        size: known(wire.size),
        expected_response_tokens: known(wire.expected_response_tokens),
    })
}

fn trace(parent: String, state: String) -> Result<Option<Trace>, Failure> {
    at_most(&parent, MAX_TRACEPARENT_BYTES, "context.traceparent")?;
    at_most(&state, MAX_TRACESTATE_BYTES, "context.tracestate")?;
    Ok((!parent.is_empty()).then_some(Trace { parent, state }))
}

/// An optional name: empty for none.
fn name(text: String, field: &'static str) -> Result<Option<String>, Failure> {
    at_most(&text, MAX_NAME_BYTES, field)?;
    Ok((!text.is_empty()).then_some(text))
}

fn at_most(text: &str, limit: usize, field: &'static str) -> Result<(), Failure> {
    if text.len() <= limit {
        return Ok(());
    }
    Err(invalid(format!("has {} bytes; at most {limit}", text.len()), field))
}

fn within(bytes: &Bytes, limit: usize, reason: Reason, at: &'static str) -> Result<(), Failure> {
    if bytes.len() <= limit {
        return Ok(());
    }
    let detail = format!("has {} bytes; at most {limit}", bytes.len());
    Err(Failure::new(ErrorClass::TooLarge, reason, detail).at(at))
}

fn invalid(detail: impl Into<String>, field: &'static str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field)
}

// === impl ItemKey ===

impl From<ItemKey> for v1::Key {
    fn from(key: ItemKey) -> Self {
        Self { item_id: key.item_id, attempt: key.attempt }
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.item_id, self.attempt)
    }
}
