use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::export::{Names, fresh_span, fresh_trace};
use super::{BatchTrace, Decision, ItemKind, Parent, Phase, Shared};

/// A record of one item. Clones are handles to the same one; the default records nothing.
///
/// Without [`ItemTrace::end`] nothing is sent: an item that nobody waits for has no outcome.
#[derive(Clone, Debug, Default)]
pub struct ItemTrace {
    item: Option<Arc<Item>>,
    /// The caller's trace, where nothing is recorded here.
    passing: Option<Arc<Parent>>,
}

/// How an item ended.
#[derive(Clone, Debug)]
pub struct ItemEnd {
    /// `valid`, or the class of the failure.
    pub class: &'static str,
    /// Of the failure; `None` for a valid item.
    pub reason: Option<&'static str>,
    /// Counts, sizes and names of versions; no texts.
    pub attributes: Vec<KeyValue>,
}

#[derive(Debug)]
struct Item {
    shared: Arc<Shared>,
    kind: ItemKind,
    parent: Option<Parent>,
    trace_id: TraceId,
    span_id: SpanId,
    started: Instant,
    /// The same moment by the wall clock: all of an item's times are relative to it, so that a
    /// clock that is set meanwhile does not tear it apart.
    wall: SystemTime,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    pieces: Vec<Piece>,
    tags: Vec<KeyValue>,
    batches: Vec<Arc<BatchTrace>>,
    /// Pieces and batches beyond the limits.
    dropped: u32,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    phase: Phase,
    start: Instant,
    end: Instant,
}

/// Children of an item: an item that is appended to piece by piece could have any number.
const MOST_PIECES: usize = 96;
/// Batches that an item remembers.
const MOST_BATCHES: usize = 16;
/// Attributes that an item is given on its way.
const MOST_TAGS: usize = 32;

// === impl ItemTrace ===

impl ItemTrace {
    #[expect(clippy::disallowed_methods, reason = "the engine's times are of this clock")]
    pub(super) fn begin(shared: Arc<Shared>, kind: ItemKind, parent: Option<Parent>) -> Self {
        let trace_id =
            parent.as_ref().map_or_else(fresh_trace, |p| TraceId::from_bytes(p.trace_id));
        let item = Item {
            shared,
            kind,
            parent,
            trace_id,
            span_id: fresh_span(),
            started: Instant::now(),
            wall: SystemTime::now(),
            record: Mutex::default(),
        };
        Self { item: Some(Arc::new(item)), passing: None }
    }

    /// Records nothing, but goes with work that is sent on.
    pub fn passing(parent: Option<Parent>) -> Self {
        Self { item: None, passing: parent.map(Arc::new) }
    }

    /// Whether anything is recorded.
    pub const fn is_on(&self) -> bool {
        self.item.is_some()
    }

    /// The trace it is in, as 32 hexadecimal digits, so that logs can name it.
    pub fn trace_id(&self) -> Option<String> {
        self.item.as_ref().map(|item| item.trace_id.to_string())
    }

    /// What goes with work that is sent on, so that its spans become children of this item's.
    /// `sampled` is what is known now: an item that fails or is slow is kept later.
    pub fn outgoing(&self) -> Option<Parent> {
        let Some(item) = &self.item else { return self.passing.as_deref().cloned() };
        Some(Parent {
            trace_id: item.trace_id.to_bytes(),
            span_id: item.span_id.to_bytes(),
            sampled: item.shared.keep.is_drawn(item.trace_id, item.parent.as_ref()),
            state: item.parent.as_ref().map(|parent| parent.state.clone()).unwrap_or_default(),
        })
    }

    /// Notes what the item did from `start` to `end`.
    pub fn did(&self, phase: Phase, start: Instant, end: Instant) {
        if let Some(item) = &self.item {
            item.lock().add(Piece { phase, start, end });
        }
    }

    /// Notes what is known before the item's end: counts, sizes and names, no texts. Beyond a few,
    /// the first ones stay.
    pub fn tag(&self, attribute: impl FnOnce() -> KeyValue) {
        let Some(item) = &self.item else { return };
        let mut record = item.lock();
        if !record.ended && record.tags.len() < MOST_TAGS {
            record.tags.push(attribute());
        }
    }

    /// Notes that the item waited for `queued` and then ran in a batch.
    pub fn ran(&self, queued: Duration, batch: &Arc<BatchTrace>) {
        let Some(item) = &self.item else { return };
        let mut record = item.lock();
        let start = batch.started();
        record.add(Piece {
            phase: Phase::Queue,
            start: start.checked_sub(queued).unwrap_or(start),
            end: start,
        });
        for (phase, start, end) in batch.phases() {
            record.add(Piece { phase, start, end });
        }
        if record.batches.len() < MOST_BATCHES {
            record.batches.push(Arc::clone(batch));
        } else {
            record.dropped += 1;
        }
    }

    /// Ends the record, decides, and sends what is kept. `end` is asked only then. Once per item;
    /// `None` where nothing was recorded, or it had ended.
    #[expect(clippy::disallowed_methods, reason = "the engine's times are of this clock")]
    pub fn end(&self, failed: bool, end: impl FnOnce() -> ItemEnd) -> Option<Decision> {
        let item = self.item.as_ref()?;
        let mut record = item.lock();
        if std::mem::replace(&mut record.ended, true) {
            return None;
        }
        let Record { pieces, batches, dropped, tags, .. } = std::mem::take(&mut *record);
        record.ended = true;
        drop(record);
        let took = item.started.elapsed();
        let keep = &item.shared.keep;
        let decision = match (failed, item.parent.as_ref()) {
            (true, _) => keep.fail(),
            (false, parent) => keep.decide(item.kind, item.trace_id, parent, took),
        };
        if decision != Decision::LeftOut {
            let ended = Instant::now();
            let mut end = end();
            end.attributes.extend(tags);
            item.send(ended, &pieces, &batches, dropped, end);
        }
        Some(decision)
    }
}

// === impl Item ===

impl Item {
    fn send(
        &self,
        ended: Instant,
        pieces: &[Piece],
        batches: &[Arc<BatchTrace>],
        dropped: u32,
        end: ItemEnd,
    ) {
        let ItemEnd { class, reason, mut attributes } = end;
        attributes.push(KeyValue::new("sleuth.item.kind", self.kind.name()));
        attributes.push(KeyValue::new("sleuth.verdict.class", class));
        attributes.extend(reason.map(|reason| KeyValue::new("sleuth.verdict.reason", reason)));
        attributes
            .extend((dropped > 0).then(|| KeyValue::new("sleuth.dropped", i64::from(dropped))));
        let state = self.parent.as_ref().map_or("", |parent| parent.state.as_str());
        let names = Names::new(self.trace_id, state);
        let own = names.context(self.span_id);
        let mut root = names.span("item", self.span_id, self.at(self.started), self.at(ended));
        if let Some(parent) = &self.parent {
            root.parent_span_id = SpanId::from_bytes(parent.span_id);
            root.parent_span_is_remote = true;
        }
        root.span_kind = SpanKind::Server;
        root.attributes = attributes;
        if let Some(reason) = reason {
            root.status = Status::error(reason);
        }
        for batch in batches {
            root.links.links.push(batch.link(&self.shared, &own));
        }
        let mut spans = vec![root];
        spans.extend(pieces.iter().map(|piece| self.child(&names, *piece)));
        self.shared.export.send(spans);
    }

    fn child(&self, names: &Names, piece: Piece) -> SpanData {
        let Piece { phase, start, end } = piece;
        let mut span = names.span(phase.name(), fresh_span(), self.at(start), self.at(end));
        span.parent_span_id = self.span_id;
        span
    }

    /// A moment by the wall clock.
    fn at(&self, moment: Instant) -> SystemTime {
        let moved = match moment.checked_duration_since(self.started) {
            Some(after) => self.wall.checked_add(after),
            None => self.wall.checked_sub(self.started.saturating_duration_since(moment)),
        };
        moved.unwrap_or(self.wall)
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.shared.keep.leave();
    }
}

// === impl Record ===

impl Record {
    fn add(&mut self, piece: Piece) {
        if self.ended {
            return;
        }
        if self.pieces.len() < MOST_PIECES {
            self.pieces.push(piece);
        } else {
            self.dropped += 1;
        }
    }
}
