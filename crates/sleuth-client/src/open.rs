use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{Context, PolicyReward, PolicyTokens, Scored, TokenReward};
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_wire::{Trace, encode_policy};

use crate::client::Client;
use crate::link::{Link, OnItsWay};
use crate::{ClientError, Refusal};

/// An item whose response is still being generated. Dropping it gives the item up.
///
/// Should the connection be lost, the item is opened again under its idempotency key and what was
/// appended is sent again: the server goes on where it was.
#[derive(Debug)]
pub struct OpenItem {
    client: Client,
    context: Context<Bytes>,
    of_policy: bool,
    parts: Vec<Part>,
    closed: bool,
    length: u64,
    /// Tokens that [`OpenItem::next`] gave.
    read: usize,
    attempt: u32,
    trace: Option<Trace>,
    when_lost: WhenLost,
    item: Option<OnItsWay>,
    ended: bool,
}

/// What happens where the connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenLost {
    /// The item is opened again, and all of it is sent again.
    OpenAgain,
    /// It has failed.
    Fail,
}

/// What comes of an open item.
#[derive(Debug)]
pub enum Event {
    /// More rewards of the reward model's tokens.
    Tokens(Vec<TokenReward>),
    /// More rewards of the policy's tokens.
    Policy(Vec<PolicyReward>),
    /// The end.
    Verdict(Result<Scored, ClientError>),
}

#[derive(Clone, Debug)]
struct Part {
    offset: u64,
    text: Bytes,
    policy: Option<PolicyTokens>,
}

// === impl OpenItem ===

impl OpenItem {
    /// `of_policy`: whether appends come with policy tokens.
    pub(crate) async fn open(
        client: Client,
        context: Context<Bytes>,
        of_policy: bool,
    ) -> Result<Self, ClientError> {
        Self::begin(client, context, of_policy, None, WhenLost::OpenAgain).await
    }

    pub(crate) async fn open_once(
        client: Client,
        context: Context<Bytes>,
        of_policy: bool,
        trace: Option<Trace>,
    ) -> Result<Self, ClientError> {
        Self::begin(client, context, of_policy, trace, WhenLost::Fail).await
    }

    async fn begin(
        client: Client,
        context: Context<Bytes>,
        of_policy: bool,
        trace: Option<Trace>,
        when_lost: WhenLost,
    ) -> Result<Self, ClientError> {
        let mut item = Self {
            client,
            context,
            of_policy,
            parts: Vec::new(),
            closed: false,
            length: 0,
            read: 0,
            attempt: 1,
            trace,
            when_lost,
            item: None,
            ended: false,
        };
        item.send_all().await?;
        Ok(item)
    }

    /// Sends more of the response. The text may end inside a character.
    ///
    /// What is wrong with it comes as the item's verdict.
    pub async fn append(&mut self, text: impl Into<Bytes>, policy: Option<PolicyTokens>) {
        let part = Part { offset: self.length, text: text.into(), policy };
        self.length += part.text.len() as u64;
        if let Some(item) = &self.item {
            item.send(append(item, part.clone())).await;
        }
        if self.when_lost == WhenLost::OpenAgain {
            self.parts.push(part);
        }
    }

    /// Sends a part of the response at its place, as it is; for whoever passes parts on. They are
    /// not sent again by this item.
    pub async fn append_at(
        &mut self,
        offset: u64,
        text: impl Into<Bytes>,
        policy: Option<PolicyTokens>,
    ) {
        let part = Part { offset, text: text.into(), policy };
        if let Some(item) = &self.item {
            item.send(append(item, part)).await;
        }
    }

    /// Says that appends come with policy tokens, before the first of them.
    pub fn expect_policy(&mut self) {
        self.of_policy = true;
        if let Some(item) = &self.item {
            item.expect_policy();
        }
    }

    /// Says that the response is whole.
    pub async fn close(&mut self) {
        self.closed = true;
        if let Some(item) = &self.item {
            item.send(Kind::Close(item.key())).await;
        }
    }

    /// What comes next; nothing comes after the verdict. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Event {
        while !self.ended {
            let error = match self.look().await {
                Ok(Event::Verdict(Err(error))) | Err(error) => error,
                Ok(event) => {
                    self.ended = matches!(event, Event::Verdict(_));
                    return event;
                }
            };
            if let Err(error) = self.again(error).await {
                self.ended = true;
                return Event::Verdict(Err(error));
            }
        }
        Event::Verdict(Err(ClientError::StreamEnded(None)))
    }

    async fn look(&mut self) -> Result<Event, ClientError> {
        let (read, of_policy) = (self.read, self.of_policy);
        let Some(item) = &mut self.item else { return Err(ClientError::StreamEnded(None)) };
        let event = item
            .when(|came| {
                let (tokens, policy) = came.assembly.since(read);
                if of_policy && !policy.is_empty() {
                    return Some(Event::Policy(policy.to_vec()));
                }
                if !of_policy && !tokens.is_empty() {
                    return Some(Event::Tokens(tokens.to_vec()));
                }
                came.verdict.take().map(Event::Verdict)
            })
            .await?;
        self.read += match &event {
            Event::Tokens(tokens) => tokens.len(),
            Event::Policy(tokens) => tokens.len(),
            Event::Verdict(_) => 0,
        };
        Ok(event)
    }

    /// Opens the item again, where that may help.
    async fn again(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.item = None;
        if self.when_lost == WhenLost::Fail {
            return Err(error);
        }
        self.client.before_retry(&error, self.attempt, &self.context).await.ok_or(error)?;
        self.attempt += 1;
        self.send_all().await
    }

    /// Sends all there is on the stream as it is now.
    async fn send_all(&mut self) -> Result<(), ClientError> {
        let link: Arc<Link> = self.client.link().await;
        let context = self.context.clone();
        let item = link.open_item(context, self.of_policy, self.trace.as_ref()).await?;
        for part in self.parts.clone() {
            item.send(append(&item, part)).await;
        }
        if self.closed {
            item.send(Kind::Close(item.key())).await;
        }
        self.item = Some(item);
        Ok(())
    }
}

fn append(item: &OnItsWay, part: Part) -> Kind {
    let Part { offset, text, policy } = part;
    Kind::Append(v1::Append {
        key: Some(item.key()),
        offset,
        text,
        policy: policy.map(encode_policy),
    })
}

impl std::fmt::Debug for OnItsWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnItsWay").finish_non_exhaustive()
    }
}

/// Whether a refusal is about an image that the server does not hold.
pub(crate) fn is_image_unknown(refusal: &Refusal) -> bool {
    refusal.reason == "image_unknown"
}
