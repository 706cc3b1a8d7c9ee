use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{FutureExt as _, Shared, WeakShared};
use sleuth_core::{Failure, Pixels};

use crate::BoxFuture;

type Decoding = BoxFuture<'static, Result<Pixels, Failure>>;

/// Decodes each image once for all items that hold it at the same time. Not a cache: an image is
/// forgotten with its last item, so there are never more entries than unfinished items.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    entries: Mutex<HashMap<[u8; 32], WeakShared<Decoding>>>,
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
    /// Joins the decoding of the image of that key, or starts it.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: [u8; 32],
        decode: impl FnOnce() -> Decoding,
    ) -> Flight {
        let mut entries = self.lock();
        let shared = entries.get(&key).and_then(WeakShared::upgrade).unwrap_or_else(|| {
            let shared = decode().shared();
            if let Some(weak) = shared.downgrade() {
                entries.insert(key, weak);
            }
            shared
        });
        drop(entries);
        Flight { flights: Arc::clone(self), key, shared: Some(shared) }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Nothing panics while the lock is held but a caller's `decode`, before anything changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], WeakShared<Decoding>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let (flights, decoded) = (Arc::new(Flights::default()), Arc::new(AtomicUsize::new(0)));
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
    async fn one_that_gives_up_does_not_end_the_decoding_for_others() {
        let flights = Arc::new(Flights::default());
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
