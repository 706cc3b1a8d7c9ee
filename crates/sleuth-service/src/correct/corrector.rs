use bytes::Bytes;
use sleuth_core::{ByteSpan, Failure, GuidanceLevel, Pixels};
use tokio::time::Instant;

use crate::BoxFuture;

/// Proposes repairs of a response.
///
/// It is asked once per round. Dropping the future gives the work up: that is how a cancel and a
/// deadline reach it. What it proposes is scored, and kept only by a rule;
/// a proposal that cannot be scored is dropped and costs the others nothing. A failure ends the item with what was kept before.
pub trait Corrector: Send + Sync + 'static {
    /// At most `request.candidates` repairs, best guess first; none where it knows of none.
    fn propose<'a>(
        &'a self,
        request: &'a RepairRequest,
    ) -> BoxFuture<'a, Result<Vec<Repair>, Failure>>;
}

/// An image file as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedImage {
    /// JPEG, PNG or WebP.
    pub data: Bytes,
    /// BLAKE3 of `data`.
    pub blake3: [u8; 32],
}

/// A response to repair.
#[derive(Clone, Debug, PartialEq)]
pub struct RepairRequest {
    /// The file.
    pub image: EncodedImage,
    /// The image as the vision tower takes it; shared, cheap to clone.
    pub pixels: Pixels,
    /// Names `pixels` in the engine's caches, as [`Prepared`](sleuth_core::Prepared) has it.
    pub image_key: [u8; 32],
    /// What was asked.
    pub prompt: String,
    /// What was answered, with the repairs kept so far.
    pub response: String,
    /// How much the corrector may know of the token rewards.
    pub guidance: GuidanceLevel,
    /// Whole words of `response` that are not grounded: in order, disjoint, adjacent ones merged.
    /// Empty unless `guidance` is [`GuidanceLevel::Token`].
    pub flagged: Vec<ByteSpan>,
    /// Sentences of `response`: in order, together all of its tokens.
    pub sentences: Vec<ByteSpan>,
    /// Repairs wanted; at least 1.
    pub candidates: usize,
    /// Equal requests with equal seeds are to get equal repairs, where the corrector can.
    pub seed: u64,
    /// From then on nobody waits for an answer.
    pub deadline: Option<Instant>,
}

/// A proposed repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The whole repaired response.
    pub response: String,
    /// The spans of the request's response that it replaces: in order, disjoint.
    pub changed: Vec<ByteSpan>,
}
