use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sleuth_core::{Pixels, Prepared};
use tokio::time::Instant;

use crate::policy::{GroupKey, Stage};
use crate::queue::{Queue, Wanted};
use crate::{EngineError, EngineScores, Submission, Terms};

/// An item whose response is still being generated. Dropping it closes it.
///
/// Its keys and values stay with the engine between appends. Where memory is short they are
/// dropped, and computed again from its tokens at the next append, to the same bits.
#[derive(Debug)]
#[must_use = "dropping an open item closes it"]
pub struct OpenItem {
    queue: Arc<Queue>,
    id: OpenId,
    image: Pixels,
    key: GroupKey,
    terms: Terms,
    /// Tokens scored so far.
    rows: usize,
    /// An append ended without a verdict: what the worker made of it is not known.
    lost: bool,
}

/// Names an open item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OpenId(u64);

/// What a worker needs to go on with an item.
#[derive(Debug)]
pub(crate) struct Resumed {
    /// Tokens scored so far.
    pub(crate) tokens: Vec<u32>,
    /// What the model kept of them; `None` where that was dropped, or is none yet.
    pub(crate) kept: Option<Box<dyn Any + Send>>,
}

/// Counters of open items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenStats {
    /// Items open now.
    pub items: usize,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Times that keys and values were dropped because memory was short.
    pub dropped: u64,
    /// Tokens computed again because of that.
    pub recomputed_tokens: u64,
}

/// The open items, and what is kept of them within a limit of bytes.
///
/// Invariants
/// - What is kept never passes the limit: the least recently used is dropped first.
/// - Tokens of an item are never dropped before it is closed.
#[derive(Debug)]
pub(crate) struct OpenStore {
    max_items: usize,
    max_bytes: u64,
    next: u64,
    uses: u64,
    entries: HashMap<OpenId, Entry>,
    /// Items that something is kept of, by when they were last used.
    order: BTreeMap<u64, OpenId>,
    stats: OpenStats,
}

#[derive(Debug, Default)]
struct Entry {
    tokens: Vec<u32>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    value: Box<dyn Any + Send>,
    bytes: u64,
    used: u64,
}

// === impl OpenItem ===

impl OpenItem {
    /// Opens an item and sends its prefix to be computed at once.
    pub(crate) fn open(
        queue: &Arc<Queue>,
        image: Pixels,
        key: GroupKey,
        terms: Terms,
        deadline: Option<Instant>,
    ) -> Result<(Self, Submission), EngineError> {
        let id = queue.open_item()?;
        let queue = Arc::clone(queue);
        let item = Self { queue, id, image, key, terms, rows: 0, lost: false };
        let submission = item.submit(Arc::from([]), deadline)?;
        Ok((item, submission))
    }

    /// Scores the next tokens: one logit each. Appends of many items share batches.
    ///
    /// An append that ends with an error, or whose future is dropped, may or may not have been
    /// computed: the item then takes no more, and must be opened again.
    pub async fn append(
        &mut self,
        tokens: Arc<[u32]>,
        deadline: Option<Instant>,
    ) -> Result<EngineScores, EngineError> {
        if self.lost {
            return Err(EngineError::ItemLost);
        }
        let rows = tokens.len();
        let submission = self.submit(tokens, deadline)?;
        self.lost = true;
        let scores = submission.await;
        // What was refused was not computed.
        self.lost = !matches!(scores, Ok(_) | Err(EngineError::QueueFull { .. }));
        let scores = scores?;
        self.rows += rows;
        Ok(scores)
    }

    /// Tokens scored so far.
    pub fn tokens(&self) -> usize {
        self.rows
    }

    /// Ends the item and frees what is kept of it.
    pub fn close(self) {}

    fn submit(
        &self,
        tokens: Arc<[u32]>,
        deadline: Option<Instant>,
    ) -> Result<Submission, EngineError> {
        let wanted = Wanted {
            key: self.key.clone(),
            tokens: tokens.len(),
            past: self.rows,
            stage: Stage::Open,
            terms: self.terms.clone(),
        };
        let prepared = Prepared {
            pixels: self.image.clone(),
            image_key: self.key.image_key,
            prompt: Arc::clone(&self.key.prompt),
            response: tokens,
        };
        let claim = self.queue.claim(wanted)?;
        Ok(Submission::new(&self.queue, claim, prepared, Some(self.id), deadline))
    }
}

impl Drop for OpenItem {
    fn drop(&mut self) {
        self.queue.close_item(self.id);
    }
}

// === impl OpenStore ===

impl OpenStore {
    pub(crate) fn new(max_items: usize, max_bytes: u64) -> Self {
        Self {
            max_items,
            max_bytes,
            next: 0,
            uses: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            stats: OpenStats::default(),
        }
    }

    /// A new item without tokens; `None` where there are too many.
    pub(crate) fn open(&mut self) -> Option<OpenId> {
        if self.entries.len() >= self.max_items {
            return None;
        }
        let id = OpenId(self.next);
        self.next += 1;
        self.entries.insert(id, Entry::default());
        Some(id)
    }

    pub(crate) fn close(&mut self, id: OpenId) {
        self.take_kept(id);
        self.entries.remove(&id);
    }

    /// Hands out what an item needs to go on; `None` where it was closed.
    pub(crate) fn resume(&mut self, id: OpenId) -> Option<Resumed> {
        let kept = self.take_kept(id);
        let tokens = self.entries.get(&id)?.tokens.clone();
        if kept.is_none() {
            self.stats.recomputed_tokens += tokens.len() as u64;
        }
        Some(Resumed { tokens, kept })
    }

    /// Takes back an item that went on by `tokens`.
    pub(crate) fn put(
        &mut self,
        id: OpenId,
        tokens: &[u32],
        value: Option<Box<dyn Any + Send>>,
        bytes: u64,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.tokens.extend_from_slice(tokens);
        let Some(value) = value else { return };
        let used = self.uses;
        self.uses += 1;
        entry.kept = Some(Kept { value, bytes, used });
        self.order.insert(used, id);
        self.stats.bytes += bytes;
        while self.stats.bytes > self.max_bytes
            && let Some((_, &oldest)) = self.order.first_key_value()
        {
            self.take_kept(oldest);
            self.stats.dropped += 1;
        }
    }

    pub(crate) fn stats(&self) -> OpenStats {
        OpenStats { items: self.entries.len(), ..self.stats }
    }

    fn take_kept(&mut self, id: OpenId) -> Option<Box<dyn Any + Send>> {
        let Kept { value, bytes, used } = self.entries.get_mut(&id)?.kept.take()?;
        self.order.remove(&used);
        self.stats.bytes -= bytes;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_within_its_limit_and_tokens_are_never_dropped() {
        let mut store = OpenStore::new(3, 100);
        let ids: Vec<OpenId> = (0..3).map(|_| store.open().unwrap()).collect();
        assert_eq!(store.open(), None);
        for (n, &id) in ids.iter().enumerate() {
            assert!(store.resume(id).unwrap().kept.is_none());
            store.put(id, &[n as u32, 7], Some(Box::new(n)), 40);
        }
        assert_eq!(store.stats().bytes, 80);
        assert_eq!((store.stats().items, store.stats().dropped), (3, 1));
        let oldest = store.resume(ids[0]).unwrap();
        assert!(oldest.kept.is_none());
        assert_eq!((oldest.tokens, store.stats().recomputed_tokens), (vec![0, 7], 2));
        let last = store.resume(ids[2]).unwrap();
        assert_eq!(*last.kept.unwrap().downcast::<usize>().unwrap(), 2);
        store.close(ids[1]);
        assert_eq!((store.stats().items, store.stats().bytes), (2, 0));
        assert!(store.resume(ids[1]).is_none());
    }

    #[test]
    fn an_item_over_the_limit_keeps_only_its_tokens() {
        let mut store = OpenStore::new(1, 10);
        let id = store.open().unwrap();
        store.put(id, &[1], Some(Box::new(())), 11);
        assert_eq!((store.stats().bytes, store.stats().dropped), (0, 1));
        assert_eq!(store.resume(id).unwrap().tokens, [1]);
    }
}
