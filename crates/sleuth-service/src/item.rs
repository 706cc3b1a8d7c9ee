use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{
    CacheUse, Context, Encoded, Failure, ImageSource, Options, Pixels, Scored, Timing,
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
    adapter: String,
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
        let adapter = model.card().adapter.clone().unwrap_or_default();
        Ok(Self {
            caller,
            image: ImageFile { digest, data },
            prompt,
            adapter,
            options: context.options,
            threshold,
            priority: context.priority,
            model,
        })
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms { tenant: Arc::clone(&self.caller.tenant), priority: self.priority }
    }

    /// What makes this item itself, apart from attempt, timeout, trace and policy tokens.
    pub(crate) fn fingerprint(&self, response: Option<&str>) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.image.digest);
        for text in [self.prompt.as_str(), self.adapter.as_str()] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let Options { aggregation, sentences, threshold: _, realignment } = self.options;
        let choices = [aggregation as u8, sentences as u8, realignment as u8];
        hasher.update(&choices);
        hasher.update(&self.threshold.to_bits().to_le_bytes());
        let context = *hasher.finalize().as_bytes();
        let response = response.map(|text| *blake3::hash(text.as_bytes()).as_bytes());
        Fingerprint { context, response }
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

pub(crate) fn cache_use(reuse: Reuse) -> CacheUse {
    let rows = u32::try_from(reuse.prefix_rows).unwrap_or(u32::MAX);
    let (reused, computed) = if reuse.prefix { (rows, 0) } else { (0, rows) };
    CacheUse {
        prefix_positions_reused: reused,
        prefix_positions_computed: computed,
        vision_reused: reuse.vision,
    }
}
