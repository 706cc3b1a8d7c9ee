//! Preparing and scoring without tokenizer, decoder and model, for tests of the service and of what
//! stands on it.

mod words;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sleuth_core::{ByteSpan, Encoded, ErrorClass, Failure, ModelCard, Pixels, Reason};
use tokio::sync::oneshot;

use crate::{Growing, Prepare};

pub use words::{ScriptedCorrector, WordScorer};

/// One token per byte, one pixel per image, and a count of what was done.
#[derive(Clone, Debug, Default)]
pub struct FakePrepare {
    decoded: Arc<AtomicUsize>,
    /// What decoding waits for, if anything.
    hold: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

/// What a fake model says of itself.
pub fn card() -> ModelCard {
    ModelCard {
        name: "mini".to_owned(),
        version: "v1".to_owned(),
        architecture: "Fake".to_owned(),
        adapter: Some("tldr".to_owned()),
        prompt: "own".to_owned(),
        threshold: 0.5,
        causal_suffix: true,
        max_prompt_tokens: 16,
        max_response_tokens: 16,
    }
}

// === impl FakePrepare ===

impl FakePrepare {
    /// The next decoding waits until the sender is used or dropped.
    pub fn hold_decoding(&self) -> oneshot::Sender<()> {
        let (go, hold) = oneshot::channel();
        *self.hold() = Some(hold);
        go
    }

    /// Images decoded so far.
    pub fn decoded(&self) -> usize {
        self.decoded.load(Ordering::SeqCst)
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, Option<oneshot::Receiver<()>>> {
        self.hold.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Prepare for FakePrepare {
    fn image_key(&self, blake3: &[u8; 32]) -> [u8; 32] {
        *blake3
    }

    #[expect(clippy::panic, reason = "the image asks for a panic")]
    fn pixels(&self, image: &[u8]) -> Result<Pixels, Failure> {
        self.decoded.fetch_add(1, Ordering::SeqCst);
        let hold = self.hold().take();
        if let Some(hold) = hold {
            let _ = hold.blocking_recv();
        }
        match image {
            b"damaged" => {
                let (class, reason) = (ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED);
                Err(Failure::new(class, reason, "damaged").at("context.image.data"))
            }
            b"panic" => panic!("scripted"),
            _ => {
                let value = f32::from(image.first().copied().unwrap_or_default());
                Pixels::try_new(1, 1, vec![value; 3].into()).map_err(|e| {
                    let (class, reason) = (ErrorClass::ModelFailure, Reason::WORKER_FAILED);
                    Failure::new(class, reason, e.to_string())
                })
            }
        }
    }

    fn prompt(&self, text: &str) -> Result<Arc<[u32]>, Failure> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn response(&self, text: &str) -> Result<Encoded, Failure> {
        Ok(encoded(text.as_bytes(), 0))
    }

    fn grow(&self) -> Box<dyn Growing> {
        Box::new(FakeGrowing::default())
    }
}

impl Growing for FakeGrowing {
    fn push(&mut self, bytes: &[u8]) -> Result<Encoded, Failure> {
        assert!(bytes != b"panic", "scripted");
        self.bytes.extend_from_slice(bytes);
        Ok(self.settle(self.bytes.len().saturating_sub(1)))
    }

    fn finish(&mut self) -> Result<Encoded, Failure> {
        if self.bytes.is_empty() {
            let (class, reason) = (ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY);
            return Err(Failure::new(class, reason, "empty").at("response"));
        }
        Ok(self.settle(self.bytes.len()))
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn held_back(&self) -> usize {
        self.bytes.len() - self.settled
    }
}

impl FakeGrowing {
    fn settle(&mut self, end: usize) -> Encoded {
        let range = self.settled..end.max(self.settled);
        self.settled = range.end;
        encoded(&self.bytes[range.clone()], range.start)
    }
}

/// The last byte is held back until the next one comes.
#[derive(Default)]
struct FakeGrowing {
    bytes: Vec<u8>,
    settled: usize,
}

/// A token per byte, from `start` on.
fn encoded(bytes: &[u8], start: usize) -> Encoded {
    let spans = (start as u32..).zip(bytes);
    Encoded {
        spans: spans.filter_map(|(at, _)| ByteSpan::try_new(at, at + 1).ok()).collect(),
        ids: bytes.iter().copied().map(u32::from).collect(),
    }
}
