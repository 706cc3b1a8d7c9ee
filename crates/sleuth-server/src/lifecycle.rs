use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every item got its verdict.
    Complete,
    /// The drain deadline passed first.
    CutOff {
        /// Calls that were still open.
        calls: usize,
    },
}

/// Serving, then draining, then stopped. Clones share one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lifecycle {
    draining: CancellationToken,
    closing: CancellationToken,
    stopped: CancellationToken,
    calls: TaskTracker,
}

// === impl Lifecycle ===

impl Lifecycle {
    /// From now on new items are refused and unfinished ones finish.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
        self.calls.close();
    }

    /// From now on connections are asked to end.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Resolves when connections are to end.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// From now on unfinished items are given up.
    pub(crate) fn stop(&self) {
        self.stopped.cancel();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when draining begins.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Resolves when unfinished items are given up.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Counts a call until the token is dropped.
    pub(crate) fn call(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    pub(crate) fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Resolves when draining has begun and no call is open.
    pub(crate) async fn idle(&self) {
        self.calls.wait().await;
    }
}
