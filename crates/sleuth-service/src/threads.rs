use std::sync::Arc;
use std::time::Duration;

use sleuth_core::Failure;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::failures;

/// Runs blocking work off the async threads once a thread is free. A panic there is a failure.
pub(crate) async fn on_thread<T: Send + 'static>(
    threads: Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    on_thread_within(threads, None, work).await
}

/// As [`on_thread`]; what takes longer than `limit` once it runs is a failure, though its thread
/// stays busy to the end.
pub(crate) async fn on_thread_within<T: Send + 'static>(
    threads: Arc<Semaphore>,
    limit: Option<Duration>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    // The semaphore is never closed.
    let permit = threads.acquire_owned().await.map_err(|_| failures::worker_failed())?;
    let done = spawn_blocking(move || {
        // The thread is busy until the work ends, even where nobody waits for it any more.
        let _permit = permit;
        work()
    });
    let done = match limit {
        None => done.await,
        Some(limit) => match timeout(limit, done).await {
            Ok(done) => done,
            Err(_) => return Err(failures::slow_image(limit)),
        },
    };
    done.unwrap_or_else(|error| {
        tracing::error!(panicked = error.is_panic(), "preparing an item failed");
        Err(failures::worker_failed())
    })
}
