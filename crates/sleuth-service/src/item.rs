use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{
    CacheUse, Context, Encoded, Failure, ImageSource, Options, Pixels, Scored, Timing,
    prefix_digest,
};
use sleuth_engine::{Reservation, Reuse, Terms};

use crate::flights::Flight;
use crate::once::Fingerprint;
use crate::verdict::{self, Rules};
use crate::{Caller, LoadedModel, check};

/// All of an item but its response, with every choice made.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) caller: Caller,
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) image: ImageFile,
    pub(crate) prompt: String,
    /// The choices as they were asked for: what is left open stays the same item under a later version.
    asked: [u8; 32],
    pub(crate) options: Options,
    /// In 0..=1.
    threshold: f32,
    priority: i32,
}

/// An image as it was named.
#[derive(Clone, Debug)]
pub(crate) struct ImageFile {
    /// BLAKE3 of the file.
    pub(crate) digest: [u8; 32],
    /// The file, where it came with the item.
    pub(crate) data: Option<Bytes>,
}

/// An item that has everything a device needs, and room in the queue.
pub(crate) struct Ready {
    pub(crate) reservation: Reservation,
    pub(crate) pixels: Pixels,
    pub(crate) image_key: [u8; 32],
    pub(crate) prompt: Arc<[u32]>,
    pub(crate) encoded: Encoded,
    /// Held until the verdict, so that later items of the group find the pixels.
    pub(crate) flight: Option<Flight>,
}

// === impl Item ===

impl Item {
    pub(crate) fn new(
        caller: Caller,
        model: Arc<LoadedModel>,
        context: &Context<Bytes>,
        digest: [u8; 32],
    ) -> Result<Self, Failure> {
        let threshold = check::threshold(&context.options, model.card())?;
        let data = match &context.image {
            ImageSource::Data(data) => Some(data.clone()),
            ImageSource::Digest(_) => None,
        };
        let prompt = context.prompt.clone().unwrap_or_else(|| model.card().prompt.clone());
        let asked = asked(context, &digest);
        Ok(Self {
            caller,
            image: ImageFile { digest, data },
            prompt,
            asked,
            options: context.options,
            threshold,
            priority: context.priority,
            model,
        })
    }

    /// Takes note that the item needs its prefix.
    pub(crate) fn needs_prefix(&self, image_key: [u8; 32], prompt: &Arc<[u32]>) {
        let digest = prefix_digest(&self.model.card().version, &self.image.digest, &self.prompt);
        self.model.prefixes.needs(digest, image_key, prompt);
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms { tenant: Arc::clone(&self.caller.tenant), priority: self.priority }
    }

    /// What makes this item itself, apart from attempt, timeout, trace and policy tokens.
    pub(crate) fn fingerprint(&self, response: Option<&str>) -> Fingerprint {
        Fingerprint::new(self.asked, response)
    }

    /// The verdict on a response of these logits.
    pub(crate) fn verdict(
        &self,
        response: &str,
        encoded: &Encoded,
        logits: &[f32],
        timing: Timing,
        cache: CacheUse,
    ) -> Result<Scored, Failure> {
        let rules = Rules {
            card: self.model.card(),
            options: self.options,
            threshold: self.threshold,
            batch_invariant: self.model.engine.batch_invariant(),
            timing,
            cache,
        };
        let scored = verdict::scored(response, encoded, logits, rules)?;
        self.model.count(&scored.tokens);
        Ok(scored)
    }
}

/// The digest of an item's choices, without its response.
pub(crate) fn asked(context: &Context<Bytes>, image: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(image);
    let adapter = context.adapter.as_deref().filter(|name| !name.is_empty());
    for text in [context.prompt.as_deref(), adapter] {
        hasher.update(&[u8::from(text.is_some())]);
        let text = text.unwrap_or_default();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let Options { aggregation, sentences, threshold, realignment } = context.options;
    hasher.update(&[aggregation as u8, sentences as u8, realignment as u8]);
    hasher.update(&[u8::from(threshold.is_some())]);
    hasher.update(&threshold.unwrap_or_default().to_bits().to_le_bytes());
    *hasher.finalize().as_bytes()
}

pub(crate) fn cache_use(reuse: Reuse) -> CacheUse {
    let rows = u32::try_from(reuse.prefix_rows).unwrap_or(u32::MAX);
    let (reused, computed) = if reuse.prefix { (rows, 0) } else { (0, rows) };
    CacheUse {
        prefix_positions_reused: reused,
        prefix_positions_computed: computed,
        vision_reused: reuse.vision,
    }
}
