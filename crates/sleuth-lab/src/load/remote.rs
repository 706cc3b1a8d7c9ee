use std::hash::{DefaultHasher, Hasher as _};
use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sleuth_client::{Client, ClientError, ClientSettings, RetrySettings, Security};
use sleuth_core::{Context, Group, ImageSource, ScoreRequest, Scored};

use super::{Answer, Arrival, PlanSettings, Target, response};

/// How a server is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteSettings {
    /// Connections; groups take them in turn.
    pub connections: usize,
    /// The prompt of every item; `None` for the model's own.
    pub prompt: Option<String>,
    /// Time of every item; `None` for the server's limit.
    pub timeout: Option<Duration>,
    /// What the client itself tries again, unseen by the checker.
    pub retry: RetrySettings,
    /// How soon a connection that no longer answers is given up.
    pub keepalive: Duration,
    /// How the server is known, and knows us.
    pub security: Security,
}

/// A server behind [`Client`]s. Images are put once and named by digest.
#[derive(Debug)]
pub struct Remote {
    clients: Vec<Client>,
    images: Vec<[u8; 32]>,
    settings: RemoteSettings,
    plan: PlanSettings,
}

/// Side of the images, in pixels.
const SIDE: u32 = 64;
/// Replies that may be on their way at once, as far as the client goes: the plan has its own bound.
const IN_FLIGHT: usize = 1 << 20;

// === impl Remote ===

impl Remote {
    /// Connects, and puts the plan's images. Several URLs, with commas between, are of servers with
    /// the same API: connections are spread over them, at least one to each.
    pub async fn connect(url: &str, settings: RemoteSettings, plan: PlanSettings) -> Result<Self> {
        let client_settings = ClientSettings {
            max_in_flight: IN_FLIGHT,
            retry: settings.retry,
            keepalive_interval: settings.keepalive,
            keepalive_timeout: settings.keepalive,
            ..ClientSettings::default()
        };
        let mut clients = Vec::new();
        let mut images = Vec::new();
        let urls: Vec<&str> = url.split(',').map(str::trim).collect();
        let connections = settings.connections.max(urls.len());
        for url in urls.into_iter().cycle().take(connections) {
            let client = Client::connect_secured(url, client_settings, &settings.security)
                .await
                .with_context(|| format!("connect to {url}"))?;
            images.clear();
            for n in 0..plan.images {
                images.push(client.put_image(picture(plan.seed, n)?).await?);
            }
            clients.push(client);
        }
        Ok(Self { clients, images, settings, plan })
    }

    /// Tokens of the prompt, and of a typical response.
    pub async fn tokens(&self) -> Result<(usize, usize)> {
        let Some(client) = self.clients.first() else { return Ok((0, 0)) };
        let prompt = match &self.settings.prompt {
            Some(prompt) => prompt.clone(),
            None => client.model().await?.prompt,
        };
        let words = self.plan.least_words.midpoint(self.plan.most_words);
        let text = response(0, words, self.plan.seed);
        // A prompt has `<bos>` and a newline around it.
        let prompt = if prompt.is_empty() { 0 } else { client.tokenize(prompt).await?.ids.len() };
        Ok((prompt + 2, client.tokenize(text).await?.ids.len()))
    }

    fn request(&self, arrival: &Arrival) -> ScoreRequest<Bytes> {
        let digest = self.images.get(arrival.image).copied().unwrap_or_default();
        let mut context = Context::new(ImageSource::Digest(digest));
        context.prompt.clone_from(&self.settings.prompt);
        context.timeout = self.settings.timeout;
        context.idempotency_key = Some(format!("{}-{}", self.plan.seed, arrival.item));
        context.group = Some(Group {
            id: format!("{}-{}", self.plan.seed, arrival.group),
            size: Some(self.plan.group_size),
            expected_response_tokens: None,
        });
        let text = response(arrival.item, arrival.words, self.plan.seed);
        ScoreRequest { context, response: text, policy: None }
    }
}

impl Target for Remote {
    async fn score(&self, arrival: Arrival) -> Answer {
        // A group's members come from one caller.
        let place = arrival.group % self.clients.len().max(1) as u64;
        let Some(client) = self.clients.get(place as usize) else {
            return Answer::Lost { why: "no connection".to_owned() };
        };
        match client.score(self.request(&arrival)).await {
            Ok(scored) => valid(&scored),
            Err(error) => failed(&error),
        }
    }
}

fn valid(scored: &Scored) -> Answer {
    let mut hasher = DefaultHasher::new();
    for token in &scored.tokens {
        hasher.write_u32(token.logit.to_bits());
        hasher.write_u32(token.span.end());
    }
    hasher.write_u32(scored.reward.to_bits());
    Answer::Valid {
        version: scored.version.clone(),
        rewards: scored.tokens.len(),
        zeros: scored.tokens.iter().filter(|token| token.reward == 0.0).count(),
        response_reward: scored.reward,
        batch_invariant: scored.batch_invariant,
        duplicates_joined: scored.duplicates_joined,
        queue: scored.timing.queue,
        compute: scored.timing.compute,
        fingerprint: hasher.finish(),
    }
}

fn failed(error: &ClientError) -> Answer {
    match error {
        ClientError::Refused(refusal) => Answer::Refused {
            class: refusal.class.name().to_owned(),
            reason: refusal.reason.clone(),
            retry_after: refusal.retry_after,
            retryable: refusal.retryable,
        },
        other => Answer::Lost { why: other.to_string() },
    }
}

/// A picture of coloured blocks, another one for each seed and number.
fn picture(seed: u64, n: usize) -> Result<Bytes> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ (n as u64) << 32);
    let blocks: Vec<[u8; 3]> = (0..64).map(|_| random.next_u32().to_le_bytes()).map(rgb).collect();
    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb(blocks[(y / 8 * 8 + x / 8) as usize]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner().into())
}

const fn rgb([r, g, b, _]: [u8; 4]) -> [u8; 3] {
    [r, g, b]
}

// === impl RemoteSettings ===

impl Default for RemoteSettings {
    /// One connection, the model's own prompt, nothing tried again.
    fn default() -> Self {
        Self {
            connections: 1,
            prompt: None,
            timeout: None,
            retry: RetrySettings::NEVER,
            keepalive: Duration::from_secs(20),
            security: Security::default(),
        }
    }
}
