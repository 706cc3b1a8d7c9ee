use serde::Serialize;
use sleuth_core::ModelCard;

/// A list of vLLM's or OpenAI's, with what they say of its making.
#[derive(Debug, Serialize)]
pub(super) struct List<'a, T> {
    pub(super) id: String,
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: &'a str,
    /// The digest of the model's files.
    pub(super) version: &'a str,
    pub(super) data: Vec<T>,
    pub(super) usage: Usage,
}

/// Tokens of responses; those of images and prompts are not counted, as most are reused.
#[derive(Debug, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) total_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) prompt_tokens_details: Option<()>,
}

/// `GET /v1/models`.
#[derive(Debug, Serialize)]
pub(super) struct Models<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: &'a str,
    parent: Option<()>,
    max_model_len: u32,
    version: &'a str,
    adapter: Option<&'a str>,
}

// === impl Usage ===

impl Usage {
    pub(super) fn of(tokens: usize) -> Self {
        Self {
            prompt_tokens: tokens,
            total_tokens: tokens,
            completion_tokens: 0,
            prompt_tokens_details: None,
        }
    }
}

// === impl Models ===

impl<'a> Models<'a> {
    pub(super) fn of(card: &'a ModelCard, created: u64) -> Self {
        let model = Model {
            id: &card.name,
            object: "model",
            created,
            owned_by: "sleuth",
            root: &card.name,
            parent: None,
            max_model_len: card.max_response_tokens,
            version: &card.version,
            adapter: card.adapter.as_deref(),
        };
        Self { object: "list", data: [model] }
    }
}
