use std::time::Duration;

use futures::future::join_all;
use sleuth_chat::{ChatClient, ChatError, DataUrl, Endpoint, Limits, Message, Pace, Request, Role};
use sleuth_core::{ErrorClass, Failure, Reason, changes};
use tokio::sync::Semaphore;

use super::{Corrector, EncodedImage, Repair, RepairRequest, guidance_prompt};
use crate::BoxFuture;

/// Has an OpenAI-compatible server propose repairs. Who asks for a repair never chooses which.
#[derive(Debug)]
pub struct EndpointCorrector {
    client: ChatClient,
    settings: EndpointSettings,
    slots: Semaphore,
}

/// How an endpoint is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSettings {
    /// Hosts that may be asked, by name or address, beside this machine.
    pub allowed_hosts: Vec<String>,
    /// Whether the image goes along; without it a text-only model can be asked.
    pub with_image: bool,
    /// Of all candidates of a round but the first, which is greedy; 0 to 2.
    pub temperature: f32,
    /// Longest reply, in tokens of the endpoint.
    pub max_reply_tokens: u32,
    /// Requests under way at once, over all items.
    pub concurrency: usize,
    /// Of one request: time, attempts, bytes.
    pub limits: Limits,
    /// Requests per minute; `None` is no limit.
    pub requests_per_minute: Option<u32>,
}

/// Why an endpoint is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointRefused {
    /// Its host is not among those allowed.
    #[error("the host `{0}` is not allowed; only loopback is, and what the settings name")]
    Host(String),
    /// The client could not be set up.
    #[error(transparent)]
    Chat(#[from] ChatError),
}

/// Fewest tokens that a reply may have, whatever the response's length.
const LEAST_REPLY_TOKENS: u32 = 64;

// === impl EndpointSettings ===

impl Default for EndpointSettings {
    /// Loopback only, with the image, eight requests at once, a minute and three attempts each.
    fn default() -> Self {
        let limits = Limits { attempts: 3, reply_bytes: 256 << 10, ..Limits::default() };
        Self {
            allowed_hosts: Vec::new(),
            with_image: true,
            temperature: 0.7,
            max_reply_tokens: 4096,
            concurrency: 8,
            limits: Limits {
                backoff: Duration::from_millis(500),
                longest_wait: Duration::from_secs(10),
                ..limits
            },
            requests_per_minute: None,
        }
    }
}

// === impl EndpointCorrector ===

impl EndpointCorrector {
    /// Refuses a host that the settings do not allow. Opens no connection yet.
    pub fn new(endpoint: Endpoint, settings: EndpointSettings) -> Result<Self, EndpointRefused> {
        let host = endpoint.host();
        let is_named = settings.allowed_hosts.iter().any(|name| name.eq_ignore_ascii_case(host));
        if !endpoint.is_loopback() && !is_named {
            return Err(EndpointRefused::Host(host.to_owned()));
        }
        let pace = Pace::per_minute(settings.requests_per_minute);
        let client = ChatClient::new(endpoint, settings.limits, pace)?;
        let slots = Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self { client, settings, slots })
    }

    async fn ask(&self, request: &RepairRequest, number: usize) -> Result<Repair, Failure> {
        // Never closed.
        let _slot = self.slots.acquire().await.map_err(|_| failed("the client is closed"))?;
        let chat = self.chat(request, number);
        let completion =
            self.client.complete(&chat).await.map_err(|error| failed(&error.to_string()))?;
        if completion.is_cut {
            return Err(failed("the reply was cut at its limit of tokens"));
        }
        let response = bare(&completion.text, &request.response).to_owned();
        let changed = changes(&request.response, &response).iter().map(|c| c.before).collect();
        Ok(Repair { response, changed })
    }

    fn chat(&self, request: &RepairRequest, number: usize) -> Request {
        let RepairRequest { guidance, prompt, response, flagged, sentences, .. } = request;
        let text = guidance_prompt(*guidance, prompt, response, flagged, sentences);
        let message = Message::new(Role::User, text);
        let message = if self.settings.with_image {
            message.with_image(data_url(&request.image))
        } else {
            message
        };
        // Few tokens are shorter than two bytes, and a repair has about the response's length.
        let wanted = u32::try_from(response.len() / 2).unwrap_or(u32::MAX);
        let most = self.settings.max_reply_tokens.max(LEAST_REPLY_TOKENS);
        Request {
            messages: vec![message],
            max_tokens: wanted.saturating_add(LEAST_REPLY_TOKENS).min(most),
            temperature: if number == 0 { 0.0 } else { self.settings.temperature },
            seed: request.seed.wrapping_add(number as u64),
        }
    }
}

impl Corrector for EndpointCorrector {
    /// One request per candidate, all at once. Fails where every one of them does.
    fn propose<'a>(
        &'a self,
        request: &'a RepairRequest,
    ) -> BoxFuture<'a, Result<Vec<Repair>, Failure>> {
        Box::pin(async move {
            let asked = (0..request.candidates.max(1)).map(|number| self.ask(request, number));
            let mut repairs = Vec::with_capacity(request.candidates);
            let mut failure = None;
            for answer in join_all(asked).await {
                match answer {
                    Ok(repair) => repairs.push(repair),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            match failure {
                Some(failure) if repairs.is_empty() => Err(failure),
                _ => Ok(repairs),
            }
        })
    }
}

/// A reply without what models put around it: a cue, a pair of quotes, white space.
fn bare<'a>(reply: &'a str, response: &str) -> &'a str {
    let text = reply.trim();
    let cue = "corrected response:";
    let text = match text.get(..cue.len()) {
        Some(start) if start.eq_ignore_ascii_case(cue) => text[cue.len()..].trim_start(),
        _ => text,
    };
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let is_around = |inner: &&str| !inner.contains('"') && !response.trim_start().starts_with('"');
    inner.filter(is_around).unwrap_or(text)
}

fn data_url(image: &EncodedImage) -> DataUrl {
    let media_type = match &image.data[..] {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, ..] => "image/jpeg",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => "application/octet-stream",
    };
    DataUrl::new(media_type, &image.data)
}

fn failed(why: &str) -> Failure {
    let detail = format!("the corrector's endpoint gave no repair: {why}");
    Failure::new(ErrorClass::ModelFailure, Reason::CORRECTOR_FAILED, detail)
}

#[cfg(test)]
mod tests;
