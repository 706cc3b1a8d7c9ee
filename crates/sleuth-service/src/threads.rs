use std::sync::Arc;

use sleuth_core::Failure;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::failures;

/// Runs blocking work off the async threads once a thread is free. A panic there is a failure.
pub(crate) async fn on_thread<T: Send + 'static>(
    threads: Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    // The semaphore is never closed.
    let permit = threads.acquire_owned().await.map_err(|_| failures::worker_failed())?;
    let done = spawn_blocking(move || {
        // The thread is busy until the work ends, even where nobody waits for it any more.
        let _permit = permit;
        work()
    });
    done.await.unwrap_or_else(|error| {
        tracing::error!(panicked = error.is_panic(), "preparing an item failed");
        Err(failures::worker_failed())
    })
}
