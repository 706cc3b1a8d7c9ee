use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{FutureExt as _, Shared, WeakShared};
use sleuth_core::{Failure, Pixels};

use crate::BoxFuture;
use crate::weighted::Weighted;

type Decoding = BoxFuture<'static, Result<Pixels, Failure>>;

/// Decodes each image once for all items that hold it at the same time, and keeps the pixels that
/// were used last within a limit of bytes. There are never more flights than unfinished items.
#[derive(Debug)]
pub(crate) struct Flights {
    entries: Mutex<HashMap<[u8; 32], WeakShared<Decoding>>>,
    kept: Mutex<Weighted<[u8; 32], Pixels>>,
}

/// One item's part in decoding an image. While a part is held, the pixels stay.
///
/// Whoever waits drives the work; if one gives up, the next one drives on.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    key: [u8; 32],
    /// Empty only while dropping.
    shared: Option<Shared<Decoding>>,
}

// === impl Flights ===

impl Flights {
    pub(crate) fn new(kept_bytes: u64) -> Self {
        Self { entries: Mutex::default(), kept: Mutex::new(Weighted::new(kept_bytes)) }
    }

    /// Pixels that are kept.
    pub(crate) fn kept(&self, key: &[u8; 32]) -> Option<Pixels> {
        lock(&self.kept).get(key).cloned()
    }

    /// Joins the decoding of the image of that key, or starts it.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: [u8; 32],
        decode: impl FnOnce() -> Decoding,
    ) -> Flight {
        let mut entries = self.lock();
        let shared = entries.get(&key).and_then(WeakShared::upgrade).unwrap_or_else(|| {
            let shared = self.keeping(key, decode()).shared();
            if let Some(weak) = shared.downgrade() {
                entries.insert(key, weak);
            }
            shared
        });
        drop(entries);
        Flight { flights: Arc::clone(self), key, shared: Some(shared) }
    }

    fn keeping(self: &Arc<Self>, key: [u8; 32], decoding: Decoding) -> Decoding {
        let flights = Arc::downgrade(self);
        Box::pin(async move {
            let pixels = decoding.await?;
            if let Some(flights) = flights.upgrade() {
                let bytes = size_of_val(pixels.values()) as u64;
                lock(&flights.kept).insert(key, pixels.clone(), bytes);
            }
            Ok(pixels)
        })
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], WeakShared<Decoding>>> {
        lock(&self.entries)
    }
}

/// Nothing panics while a lock is held but a caller's `decode`, before anything changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Flight ===

impl Flight {
    /// Waits for the pixels.
    pub(crate) async fn pixels(&self) -> Result<Pixels, Failure> {
        match &self.shared {
            // A clone, since a shared future that was awaited itself no longer keeps its output.
            Some(shared) => shared.clone().await,
            None => Err(crate::failures::worker_failed()),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Outside the lock: this may drop the pixels.
        self.shared = None;
        let mut entries = self.flights.lock();
        if entries.get(&self.key).is_some_and(|weak| weak.upgrade().is_none()) {
            entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::failures::worker_failed;

    fn pixels() -> Pixels {
        Pixels::try_new(1, 1, vec![0.5; 3].into()).unwrap()
    }

    #[tokio::test]
    async fn an_image_is_decoded_once_while_anyone_holds_it() {
        let (flights, decoded) = (Arc::new(Flights::new(0)), Arc::new(AtomicUsize::new(0)));
        let join = || {
            let decoded = Arc::clone(&decoded);
            flights.join([1; 32], || {
                Box::pin(async move {
                    decoded.fetch_add(1, Ordering::Relaxed);
                    Ok(pixels())
                })
            })
        };
        let (first, second) = (join(), join());
        assert_eq!(first.pixels().await, Ok(pixels()));
        drop(first);
        assert_eq!(second.pixels().await, Ok(pixels()));
        let third = join();
        drop(second);
        assert_eq!(third.pixels().await, Ok(pixels()));
        assert_eq!(decoded.load(Ordering::Relaxed), 1);
        drop(third);
        assert_eq!(flights.len(), 0);
        assert_eq!(join().pixels().await, Ok(pixels()));
        assert_eq!(decoded.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn pixels_are_kept_within_their_limit() {
        let flights = Arc::new(Flights::new(12));
        let decode = || -> Decoding { Box::pin(async { Ok(pixels()) }) };
        for key in [[1; 32], [2; 32]] {
            assert_eq!(flights.join(key, decode).pixels().await, Ok(pixels()));
        }
        assert_eq!(flights.kept(&[1; 32]), None);
        assert_eq!(flights.kept(&[2; 32]), Some(pixels()));
    }

    #[tokio::test]
    async fn one_that_gives_up_does_not_end_the_decoding_for_others() {
        let flights = Arc::new(Flights::new(0));
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let first = flights.join([1; 32], || {
            Box::pin(async move {
                wait.await.expect("the test lets go");
                Ok(pixels())
            })
        });
        let second = flights.join([1; 32], || Box::pin(async { Err(worker_failed()) }));
        let mut driving = Box::pin(first.pixels());
        assert!(futures::poll!(&mut driving).is_pending());
        drop(driving);
        drop(first);
        go.send(()).unwrap();
        assert_eq!(second.pixels().await, Ok(pixels()));
    }
}
