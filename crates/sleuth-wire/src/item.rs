use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use sleuth_core::{
    Context, ErrorClass, Failure, Group, ImageSource, PolicyTokens, Reason, ScoreRequest,
};
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

/// W3C trace context that an item came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace, 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// The caller's span, 8 bytes, not all zero.
    pub parent_id: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
    /// `tracestate`; may be empty.
    pub state: String,
}

/// A whole item that keeps every limit.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedItem {
    /// What to score.
    pub request: ScoreRequest<Bytes>,
    /// The caller's trace.
    pub trace: Option<Trace>,
}

/// An item that keeps every limit, and whose response is still being generated.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedOpen {
    /// All but the response.
    pub context: Context<Bytes>,
    /// The caller's trace.
    pub trace: Option<Trace>,
}

/// Text that continues an open item's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedText {
    /// Bytes of the response before `text`.
    pub offset: u64,
    /// May end inside a character.
    pub text: Bytes,
    /// The policy's tokens: ends count from the start of the response, pieces spell `text`.
    pub policy: Option<PolicyTokens>,
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
    let response = response(wire.response, limits)?;
    let (context, trace) = context(wire.context.unwrap_or_default(), limits)?;
    let policy = policy(wire.policy, limits)?;
    within_item(size, limits)?;
    Ok(ParsedItem { request: ScoreRequest { context, response, policy }, trace })
}

/// Parses an item whose response is still being generated; as [`item`] does.
pub fn open(wire: v1::Context, limits: &Limits) -> Result<ParsedOpen, Failure> {
    let size = wire.encoded_len();
    let (context, trace) = context(wire, limits)?;
    within_item(size, limits)?;
    Ok(ParsedOpen { context, trace })
}

/// Parses text that continues an open item's response.
pub fn append(wire: v1::Append, limits: &Limits) -> Result<AppendedText, Failure> {
    within(&wire.text, limits.max_response_bytes, Reason::RESPONSE_TOO_LARGE, "text")?;
    let policy = policy(wire.policy, limits)?;
    Ok(AppendedText { offset: wire.offset, text: wire.text, policy })
}

/// The inverse of [`item`].
pub fn encode_item(key: Option<v1::Key>, request: ScoreRequest<Bytes>) -> v1::Item {
    v1::Item {
        context: Some(encode_context(key, request.context)),
        response: Bytes::from(request.response),
        policy: request.policy.map(encode_policy),
    }
}

/// The inverse of [`trace_context`]: `traceparent` and `tracestate`.
pub fn encode_trace(trace: &Trace) -> (String, String) {
    let Trace { trace_id, parent_id, sampled, state } = trace;
    let (trace_id, parent_id) = (u128::from_be_bytes(*trace_id), u64::from_be_bytes(*parent_id));
    let parent = format!("00-{trace_id:032x}-{parent_id:016x}-{:02x}", u8::from(*sampled));
    (parent, state.clone())
}

/// The inverse of [`open`], without a trace.
pub fn encode_context(key: Option<v1::Key>, context: Context<Bytes>) -> v1::Context {
    let source = match context.image {
        ImageSource::Data(data) => v1::image::Source::Data(data),
        ImageSource::Digest(digest) => v1::image::Source::Blake3(Bytes::copy_from_slice(&digest)),
    };
    v1::Context {
        key,
        group: context.group.map(|g| v1::Group {
            id: g.id,
            size: g.size.unwrap_or(0),
            expected_response_tokens: g.expected_response_tokens.unwrap_or(0),
        }),
        idempotency_key: context.idempotency_key.unwrap_or_default(),
        timeout: context.timeout.and_then(|t| t.try_into().ok()),
        priority: context.priority,
        adapter: context.adapter.unwrap_or_default(),
        required_version: context.required_version.unwrap_or_default(),
        image: Some(v1::Image { source: Some(source) }),
        prompt: context.prompt.map(Bytes::from),
        options: Some(encode_options(&context.options)),
        ..v1::Context::default()
    }
}

/// Policy tokens as a message.
pub fn encode_policy(policy: PolicyTokens) -> v1::PolicyTokens {
    match policy {
        PolicyTokens::Ends(byte_end) => v1::PolicyTokens { byte_end, piece: Vec::new() },
        PolicyTokens::Pieces(pieces) => v1::PolicyTokens {
            byte_end: Vec::new(),
            piece: pieces.into_iter().map(Bytes::from).collect(),
        },
    }
}

fn context(wire: v1::Context, limits: &Limits) -> Result<(Context<Bytes>, Option<Trace>), Failure> {
    let context = Context {
        image: image(wire.image, limits)?,
        prompt: wire.prompt.map(|p| prompt(p, limits)).transpose()?,
        adapter: name(wire.adapter, "context.adapter")?,
        required_version: name(wire.required_version, "context.required_version")?,
        options: options(wire.options.as_ref())?,
        timeout: timeout(wire.timeout.as_ref())?,
        priority: wire.priority,
        group: wire.group.map(group).transpose()?,
        idempotency_key: name(wire.idempotency_key, "context.idempotency_key")?,
    };
    Ok((context, trace(&wire.traceparent, wire.tracestate)?))
}

/// Of the two lists at most one is given; none at all is no policy tokens.
fn policy(
    wire: Option<v1::PolicyTokens>,
    limits: &Limits,
) -> Result<Option<PolicyTokens>, Failure> {
    let Some(v1::PolicyTokens { byte_end, piece }) = wire else { return Ok(None) };
    if !byte_end.is_empty() && !piece.is_empty() {
        return Err(invalid("give ends or pieces, not both", "policy"));
    }
    // A token without bytes is rare: no honest list is much longer than its text.
    let most = limits.max_response_bytes.saturating_mul(2);
    let tokens = byte_end.len().max(piece.len());
    let bytes: usize = piece.iter().map(Bytes::len).sum();
    if tokens > most || bytes > most.saturating_mul(4) {
        let detail = format!("has {tokens} tokens of {bytes} bytes; at most {most} tokens");
        return Err(
            Failure::new(ErrorClass::TooLarge, Reason::POLICY_MISMATCH, detail).at("policy")
        );
    }
    Ok(if piece.is_empty() {
        (!byte_end.is_empty()).then_some(PolicyTokens::Ends(byte_end))
    } else {
        Some(PolicyTokens::Pieces(piece.into_iter().map(Vec::from).collect()))
    })
}

fn within_item(size: usize, limits: &Limits) -> Result<(), Failure> {
    if size <= limits.max_item_bytes {
        return Ok(());
    }
    let detail = format!("the item has {size} bytes; at most {}", limits.max_item_bytes);
    Err(Failure::new(ErrorClass::TooLarge, Reason::ITEM_TOO_LARGE, detail))
}

/// Parses an item's timeout: at least 0.
pub fn timeout(wire: Option<&prost_types::Duration>) -> Result<Option<Duration>, Failure> {
    let Some(wire) = wire else { return Ok(None) };
    let negative = || invalid("a timeout is not negative", "context.timeout");
    duration(wire).map(Some).ok_or_else(negative)
}

/// A duration of at least 0; `None` for what is none.
pub fn duration(wire: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(wire.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    u64::try_from(wire.seconds).ok().map(|seconds| Duration::new(seconds, nanos))
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

fn image(wire: Option<v1::Image>, limits: &Limits) -> Result<ImageSource<Bytes>, Failure> {
    const FIELD: &str = "context.image";
    match wire.and_then(|i| i.source) {
        Some(v1::image::Source::Data(data)) if !data.is_empty() => {
            within(&data, limits.max_item_bytes, Reason::IMAGE_TOO_LARGE, FIELD)?;
            Ok(ImageSource::Data(data))
        }
        Some(v1::image::Source::Blake3(digest)) => {
            Ok(ImageSource::Digest(crate::digest(&digest, "context.image.blake3")?))
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

/// The trace of W3C's two headers; `None` for what is no trace, or too long.
pub fn trace_context(parent: &str, state: &str) -> Option<Trace> {
    trace(parent, state.to_owned()).ok().flatten()
}

/// As W3C asks, a malformed `traceparent` is ignored: tracing fails no item.
fn trace(parent: &str, state: String) -> Result<Option<Trace>, Failure> {
    at_most(parent, MAX_TRACEPARENT_BYTES, "context.traceparent")?;
    at_most(&state, MAX_TRACESTATE_BYTES, "context.tracestate")?;
    Ok(parse_traceparent(parent).map(|(trace_id, parent_id, sampled)| Trace {
        trace_id,
        parent_id,
        sampled,
        state,
    }))
}

/// `version-traceid-parentid-flags`; later versions may have more behind.
fn parse_traceparent(text: &str) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut parts = text.split('-');
    let [version] = hex::<1>(parts.next()?)?;
    let trace_id = hex::<16>(parts.next()?)?;
    let parent_id = hex::<8>(parts.next()?)?;
    let [flags] = hex::<1>(parts.next()?)?;
    let known = version != 0xff && (version != 0 || parts.next().is_none());
    let set = trace_id != [0; 16] && parent_id != [0; 8];
    (known && set).then_some((trace_id, parent_id, flags & 1 == 1))
}

/// Lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_w3c_says() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (trace, parent, sampled) = parse_traceparent(good).unwrap();
        assert_eq!((trace[0], trace[15], parent[0], sampled), (0x0a, 0x9c, 0xb7, true));
        assert!(parse_traceparent(&good.replacen("00", "cc", 1)).is_some());
        let longer = format!("{good}-more");
        assert!(parse_traceparent(&longer).is_none());
        assert!(parse_traceparent(&longer.replacen("00", "01", 1)).is_some());
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let upper = good.to_uppercase();
        for bad in ["", "00", zero, upper.as_str(), &good.replacen("00", "ff", 1), &good[1..]] {
            assert_eq!(parse_traceparent(bad), None, "{bad}");
        }
    }
}
