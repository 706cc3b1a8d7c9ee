use std::time::Duration;

use crate::{Options, PolicyTokens};

/// Where an image's encoded file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource<B> {
    /// The file itself.
    Data(B),
    /// BLAKE3 of a file that was put before.
    Digest([u8; 32]),
}

/// The rollouts of one prompt: a hint for placement, and the scope of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// 1 to 256 bytes.
    pub id: String,
    /// Members the caller means to send, if known.
    pub size: Option<u32>,
    /// Tokens expected per response, if known.
    pub expected_response_tokens: Option<u32>,
}

/// All of an item but its response.
#[derive(Clone, Debug, PartialEq)]
pub struct Context<B> {
    /// The image.
    pub image: ImageSource<B>,
    /// The prompt; `None` takes the model's own.
    pub prompt: Option<String>,
    /// The adapter to score with; `None` takes the model's default.
    pub adapter: Option<String>,
    /// Only this version may answer, if given.
    pub required_version: Option<String>,
    /// The caller's choices.
    pub options: Options,
    /// Time left for this item, from receipt; `None` waits as long as the server's own limit.
    pub timeout: Option<Duration>,
    /// Higher runs first; 0 is normal.
    pub priority: i32,
    /// The rollouts it belongs to.
    pub group: Option<Group>,
    /// Joins repeated requests for the same work.
    pub idempotency_key: Option<String>,
}

/// One image, one prompt, one response to score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRequest<B> {
    /// All but the response.
    pub context: Context<B>,
    /// The response to score.
    pub response: String,
    /// The policy's tokens of it; `None` gives rewards per token of the reward model.
    pub policy: Option<PolicyTokens>,
}

// === impl Context ===

impl<B> Context<B> {
    /// An image, with the model's own choices for all else.
    pub fn new(image: ImageSource<B>) -> Self {
        Self {
            image,
            prompt: None,
            adapter: None,
            required_version: None,
            options: Options::default(),
            timeout: None,
            priority: 0,
            group: None,
            idempotency_key: None,
        }
    }
}

// === impl ScoreRequest ===

impl<B> ScoreRequest<B> {
    /// An image file and a response, with the model's own choices for all else.
    pub fn new(image: B, response: impl Into<String>) -> Self {
        Self {
            context: Context::new(ImageSource::Data(image)),
            response: response.into(),
            policy: None,
        }
    }
}
