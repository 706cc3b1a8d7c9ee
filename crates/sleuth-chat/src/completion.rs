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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Whose.
    pub role: Role,
    /// What was said.
    pub content: String,
}

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
