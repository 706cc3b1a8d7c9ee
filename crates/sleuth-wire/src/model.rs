use bytes::Bytes;
use sleuth_core::{ByteSpan, Encoded, ErrorClass, Failure, ModelCard, Reason};
use sleuth_proto::v1;

use crate::{Limits, Unreadable};

/// Takes bytes as UTF-8, or says where they are not.
pub fn utf8_text(bytes: Bytes, reason: Reason, field: &'static str) -> Result<String, Failure> {
    String::from_utf8(Vec::from(bytes)).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let detail = format!("not UTF-8 from byte {at} on");
        Failure::new(ErrorClass::InvalidRequest, reason, detail).at(field)
    })
}

/// A BLAKE3 digest of 32 bytes.
pub fn digest(bytes: &[u8], field: &'static str) -> Result<[u8; 32], Failure> {
    bytes.try_into().map_err(|_| {
        let detail = format!("a BLAKE3 digest has 32 bytes, not {}", bytes.len());
        Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field)
    })
}

/// Describes a model and a server's limits.
pub fn model_response(
    card: &ModelCard,
    limits: &Limits,
    max_unfinished_items: u32,
) -> v1::GetModelResponse {
    let attention =
        if card.causal_suffix { v1::SuffixAttention::Causal } else { v1::SuffixAttention::Full };
    v1::GetModelResponse {
        name: card.name.clone(),
        version: card.version.clone(),
        architecture: card.architecture.clone(),
        adapter: card.adapter.clone(),
        prompt: card.prompt.clone(),
        threshold: card.threshold,
        suffix_attention: attention as i32,
        max_prompt_tokens: card.max_prompt_tokens,
        max_response_tokens: card.max_response_tokens,
        max_item_bytes: limits.max_item_bytes as u64,
        max_batch_items: u32::try_from(limits.max_batch_items).unwrap_or(u32::MAX),
        max_unfinished_items,
        max_timeout: limits.max_timeout.try_into().ok(),
    }
}

/// The model part of a description.
pub fn model_card(wire: v1::GetModelResponse) -> ModelCard {
    ModelCard {
        causal_suffix: wire.suffix_attention == v1::SuffixAttention::Causal as i32,
        name: wire.name,
        version: wire.version,
        architecture: wire.architecture,
        adapter: wire.adapter,
        prompt: wire.prompt,
        threshold: wire.threshold,
        max_prompt_tokens: wire.max_prompt_tokens,
        max_response_tokens: wire.max_response_tokens,
    }
}

/// Tokens in columns.
pub fn tokenize_response(encoded: Encoded, version: String) -> v1::TokenizeResponse {
    v1::TokenizeResponse {
        start: encoded.spans.iter().map(|s| s.start()).collect(),
        end: encoded.spans.iter().map(|s| s.end()).collect(),
        id: encoded.ids,
        version,
    }
}

/// Tokens from columns.
pub fn encoded(wire: v1::TokenizeResponse) -> Result<Encoded, Unreadable> {
    let n = wire.id.len();
    if wire.start.len() != n || wire.end.len() != n {
        return Err(Unreadable::Columns);
    }
    let spans = wire.start.iter().zip(&wire.end);
    let spans: Result<Vec<_>, _> = spans.map(|(&s, &e)| ByteSpan::try_new(s, e)).collect();
    Ok(Encoded { ids: wire.id, spans: spans.map_err(Unreadable::Span)? })
}
