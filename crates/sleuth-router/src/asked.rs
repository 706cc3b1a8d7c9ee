//! What the router knows of an item before it is placed.

use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{Context, Failure, Group, ImageSource, prefix_digest};
use sleuth_service::{Caller, ImageStore};

use crate::fleet::{Fleet, Prices};
use crate::placement::{Ask, AskGroup, GroupKey, PrefixDigest, ReplicaId};

/// An item as placement sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) prefix: PrefixDigest,
    pub(crate) group: Option<GroupKey>,
    group_size: u32,
    pub(crate) digest: [u8; 32],
    /// The image's file, where it is here.
    pub(crate) file: Option<Bytes>,
    pub(crate) adapter: Option<String>,
    /// As the caller requires it.
    required: Option<String>,
    /// The idempotency key that the caller gave it.
    pub(crate) key: Option<KeyDigest>,
    /// Where an item of that key went before.
    before: Option<ReplicaId>,
    costs: Costs,
}

/// Seconds of a replica's device.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Costs {
    prefix: f64,
    item: f64,
}

/// Bytes of text per token, about, for models whose vocabulary has some hundred thousand pieces.
/// Only what costs are compared by depends on it.
const BYTES_PER_TOKEN: f64 = 4.0;
/// Tokens of a response that is still being generated, where nobody says how many to expect.
const USUAL_TOKENS: f64 = 64.0;
/// Files up to this size are hashed on an async thread: about a tenth of a millisecond.
const INLINE_HASH: usize = 256 << 10;

// === impl Asked ===

impl Asked {
    /// `response`: bytes of the response, where it is there.
    pub(crate) async fn of(
        fleet: &Fleet,
        images: &ImageStore,
        caller: &Caller,
        context: &Context<Bytes>,
        response: Option<usize>,
    ) -> Result<Self, Failure> {
        let (digest, file) = match &context.image {
            ImageSource::Digest(digest) => (*digest, images.get(caller, *digest).ok()),
            ImageSource::Data(data) => (hash(data).await, Some(data.clone())),
        };
        let (card, prices) = fleet.card();
        let own = |field: fn(&sleuth_core::ModelCard) -> &String| {
            card.as_deref().map_or("", |card| field(card).as_str())
        };
        let prompt = context.prompt.as_deref().unwrap_or_else(|| own(|card| &card.prompt));
        let required = context.required_version.clone().filter(|version| !version.is_empty());
        let adapter = context.adapter.clone().filter(|name| !name.is_empty());
        // An adapter's version is not known here; its prefixes still have a name of their own.
        let version = match (&required, &adapter) {
            (Some(version), _) | (None, Some(version)) => version.as_str(),
            (None, None) => own(|card| &card.version),
        };
        let group = context.group.as_ref();
        let key = context.idempotency_key.as_deref().map(|key| key_digest(caller, key));
        Ok(Self {
            prefix: prefix_digest(version, &digest, prompt),
            group: group.map(|group| GroupKey {
                tenant: Arc::clone(&caller.tenant),
                id: Arc::from(group.id.as_str()),
            }),
            group_size: group.and_then(|group| group.size).unwrap_or(0),
            digest,
            file,
            costs: Costs::of(prices, group, response),
            adapter,
            required,
            key,
            before: key.and_then(|key| fleet.before(&key)),
        })
    }

    /// What to ask placement for.
    pub(crate) fn ask<'a>(&'a self, version: Option<&'a str>, avoid: &'a [ReplicaId]) -> Ask<'a> {
        let Costs { prefix, item } = self.costs;
        let group = self.group.as_ref();
        Ask {
            prefix: self.prefix,
            group: group.map(|key| AskGroup { key, size: self.group_size, item_cost: item }),
            prefix_cost: prefix,
            item_cost: item,
            version: version.or(self.required.as_deref()),
            // The versions of adapters are the replicas' own business until the first verdict.
            splittable: self.adapter.is_none(),
            avoid,
            before: self.before.as_ref(),
        }
    }

    /// Whether the caller chose the version.
    pub(crate) const fn is_required(&self) -> bool {
        self.required.is_some()
    }
}

/// Names a tenant's idempotency key.
pub(crate) type KeyDigest = [u8; 32];

fn key_digest(caller: &Caller, key: &str) -> KeyDigest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(caller.tenant.len() as u64).to_le_bytes());
    hasher.update(caller.tenant.as_bytes());
    hasher.update(key.as_bytes());
    *hasher.finalize().as_bytes()
}

async fn hash(data: &Bytes) -> [u8; 32] {
    if data.len() <= INLINE_HASH {
        return *blake3::hash(data).as_bytes();
    }
    let data = data.clone();
    let hashed = tokio::task::spawn_blocking(move || *blake3::hash(&data).as_bytes()).await;
    // Hashing does not panic; a digest of nothing would only be an image that nobody has.
    hashed.unwrap_or_default()
}

// === impl Costs ===

impl Costs {
    fn of(prices: Prices, group: Option<&Group>, response: Option<usize>) -> Self {
        let expected = group.and_then(|group| group.expected_response_tokens).map(f64::from);
        let of_text = response.map(|bytes| (bytes as f64 / BYTES_PER_TOKEN).max(1.0));
        // A member counts for what it is; what is not known yet for what is expected.
        let tokens = of_text.or(expected).unwrap_or(USUAL_TOKENS);
        Self { prefix: prices.prefix, item: tokens * prices.response_token }
    }
}
