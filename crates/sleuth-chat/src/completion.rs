use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ChatError;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the model shall do.
    System,
    /// What it shall do it with.
    User,
    /// What it said.
    Assistant,
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whose.
    pub role: Role,
    /// What was said.
    pub content: String,
    /// A picture that goes with it.
    pub image: Option<DataUrl>,
}

/// A file inside a URL, as endpoints take pictures.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DataUrl(String);

/// What a model is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// In order.
    pub messages: Vec<Message>,
    /// Most tokens of the reply.
    pub max_tokens: u32,
    /// 0 to 2; 0 is greedy.
    pub temperature: f32,
    /// For servers that sample by it.
    pub seed: u64,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Whether it stopped at the limit of tokens, and so is not whole.
    pub is_cut: bool,
    /// What it cost.
    pub usage: Usage,
}

/// Tokens as the endpoint counts them, and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens written.
    #[serde(default)]
    pub completion_tokens: u64,
    /// HTTP requests sent, failed ones included.
    #[serde(default)]
    pub requests: u64,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    max_tokens: u32,
    temperature: f32,
    seed: u64,
    stream: bool,
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Serialize)]
struct Turn<'a> {
    role: Role,
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts([ContentPart<'a>; 2]),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    ImageUrl { image_url: ImageUrl<'a> },
    Text { text: &'a str },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a DataUrl,
}

// === impl Message ===

impl Message {
    /// A turn of text alone.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), image: None }
    }

    /// The same turn with a picture.
    #[must_use]
    pub fn with_image(self, image: DataUrl) -> Self {
        Self { image: Some(image), ..self }
    }
}

impl Serialize for Message {
    /// Text alone is a string, which every server takes.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.content.as_str();
        let content = match &self.image {
            None => Content::Text(text),
            Some(url) => Content::Parts([
                ContentPart::ImageUrl { image_url: ImageUrl { url } },
                ContentPart::Text { text },
            ]),
        };
        Turn { role: self.role, content }.serialize(serializer)
    }
}

// === impl DataUrl ===

impl DataUrl {
    /// A file of a media type such as `image/png`.
    pub fn new(media_type: &str, file: &[u8]) -> Self {
        Self(format!("data:{media_type};base64,{}", STANDARD.encode(file)))
    }
}

impl fmt::Debug for DataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataUrl({} bytes)", self.0.len())
    }
}

// === impl Request ===

impl Request {
    pub(crate) fn body(&self, model: &str) -> Result<Vec<u8>, ChatError> {
        let Self { messages, max_tokens, temperature, seed } = self;
        let body = Body {
            model,
            messages,
            max_tokens: *max_tokens,
            temperature: *temperature,
            seed: *seed,
            stream: false,
        };
        serde_json::to_vec(&body).map_err(|e| ChatError::Setup(e.to_string()))
    }
}

// === impl Completion ===

impl Completion {
    /// Reads a reply's body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ChatError> {
        let reply: Reply =
            serde_json::from_slice(body).map_err(|_| ChatError::Malformed("not its JSON"))?;
        let choice = reply.choices.into_iter().next();
        let choice = choice.ok_or(ChatError::Malformed("`choices` is empty"))?;
        let text = choice.message.content.filter(|text| !text.trim().is_empty());
        Ok(Self {
            text: text.ok_or(ChatError::Malformed("`message.content` is empty"))?,
            is_cut: choice.finish_reason.as_deref() == Some("length"),
            usage: reply.usage.unwrap_or_default(),
        })
    }
}

// === impl Usage ===

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.requests = self.requests.saturating_add(other.requests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_gives_its_text_and_usage() {
        let body = br#"{"choices": [{"message": {"role": "assistant", "content": "A cat."},
            "finish_reason": "length"}], "usage": {"prompt_tokens": 7, "completion_tokens": 3,
            "total_tokens": 10}}"#;
        let read = Completion::parse(body).unwrap();
        assert_eq!((read.text.as_str(), read.is_cut), ("A cat.", true));
        assert_eq!((read.usage.prompt_tokens, read.usage.completion_tokens), (7, 3));
    }

    #[test]
    fn a_picture_makes_parts_of_a_message_and_is_not_shown() {
        let message = Message::new(Role::User, "What?");
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!(json, serde_json::json!({"role": "user", "content": "What?"}));
        let message = message.with_image(DataUrl::new("image/png", b"\x89PNG"));
        let json = serde_json::to_value(&message).unwrap();
        let parts = serde_json::json!([
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
            {"type": "text", "text": "What?"},
        ]);
        assert_eq!(json["content"], parts);
        assert!(!format!("{message:?}").contains("iVBOR"));
    }

    #[test]
    fn a_reply_without_text_is_malformed() {
        for body in [
            &b"<html>"[..],
            b"{}",
            br#"{"choices": []}"#,
            br#"{"choices": [{"message": {"content": null}}]}"#,
            br#"{"choices": [{"message": {"content": "  "}}]}"#,
        ] {
            assert!(matches!(Completion::parse(body), Err(ChatError::Malformed(_))));
        }
    }
}
