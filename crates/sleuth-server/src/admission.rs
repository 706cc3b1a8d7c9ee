use std::sync::Arc;
use std::time::Duration;

use sleuth_core::{ErrorClass, Failure, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of the budget, so that it fits a semaphore's counts.
const KIB: usize = 1024;
/// When to try again after a refusal.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Bounds the bytes of unfinished items over all calls.
#[derive(Debug)]
pub(crate) struct Admission {
    budget: Arc<Semaphore>,
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(bytes: usize) -> Self {
        let permits = (bytes / KIB).clamp(1, Semaphore::MAX_PERMITS);
        Self { budget: Arc::new(Semaphore::new(permits)) }
    }

    /// Takes room for an item, at once or not at all; the permit gives it back.
    pub(crate) fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let wanted = u32::try_from(bytes.div_ceil(KIB).max(1)).unwrap_or(u32::MAX);
        Arc::clone(&self.budget).try_acquire_many_owned(wanted).map_err(|_| {
            let detail = "the server holds as many bytes of unfinished items as it may";
            Failure::new(ErrorClass::Overload, Reason::QUEUE_FULL, detail).retry_after(RETRY_AFTER)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let admission = Admission::new(4 * KIB);
        let held = admission.admit(3 * KIB + 1).unwrap();
        let refused = admission.admit(1).unwrap_err();
        assert_eq!(refused.class, ErrorClass::Overload);
        assert!(refused.retry_after.is_some());
        drop(held);
        assert!(admission.admit(4 * KIB).is_ok());
    }
}
