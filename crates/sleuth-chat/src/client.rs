use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;

use crate::{ChatError, Completion, Endpoint, Limits, Pace, Request};

/// Asks one endpoint; cheap to share.
#[derive(Debug)]
pub struct ChatClient {
    http: reqwest::Client,
    endpoint: Endpoint,
    limits: Limits,
    pace: Pace,
}

// === impl ChatClient ===

impl ChatClient {
    /// Opens no connection yet. Redirects are not followed: the key would go along.
    pub fn new(endpoint: Endpoint, limits: Limits, pace: Pace) -> Result<Self, ChatError> {
        // Another installed before does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .timeout(limits.timeout)
            .build()
            .map_err(|e| ChatError::Setup(e.to_string()))?;
        Ok(Self { http, endpoint, limits, pace })
    }

    /// The model asked.
    pub fn model(&self) -> &str {
        &self.endpoint.model
    }

    /// One completion; what may pass is tried again, to the limit of attempts.
    pub async fn complete(&self, request: &Request) -> Result<Completion, ChatError> {
        let body = request.body(&self.endpoint.model)?;
        let mut wait = self.limits.backoff;
        let mut requests = 0;
        loop {
            self.pace.turn().await;
            requests += 1;
            let error = match self.attempt(body.clone()).await {
                Ok(mut completion) => {
                    completion.usage.requests = requests;
                    return Ok(completion);
                }
                Err(error) => error,
            };
            if !error.is_retryable() || requests >= u64::from(self.limits.attempts) {
                return Err(error);
            }
            let wished = error.retry_after().unwrap_or(wait);
            tokio::time::sleep(wished.min(self.limits.longest_wait)).await;
            wait *= 2;
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<Completion, ChatError> {
        let address = self.endpoint.address.clone();
        let mut post = self.http.post(address).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.endpoint.key {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal()))
                .map_err(|_| ChatError::Setup("the key is no header value".to_owned()))?;
            value.set_sensitive(true);
            post = post.header(AUTHORIZATION, value);
        }
        let mut response = post.send().await.map_err(|e| self.error(&e))?;
        let status = response.status();
        if !status.is_success() {
            let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
            return Err(ChatError::Status { status: status.as_u16(), retry_after });
        }
        let mut reply = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.error(&e))? {
            if reply.len() + chunk.len() > self.limits.reply_bytes {
                return Err(ChatError::TooLong(self.limits.reply_bytes));
            }
            reply.extend_from_slice(&chunk);
        }
        Completion::parse(&reply)
    }

    fn error(&self, error: &reqwest::Error) -> ChatError {
        if error.is_timeout() {
            return ChatError::Timeout(self.limits.timeout);
        }
        // The innermost cause says the most ("connection refused"), and holds no address.
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        ChatError::Connection(cause.to_string())
    }
}

/// `Retry-After` in seconds; its other form, a date, is not read.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
