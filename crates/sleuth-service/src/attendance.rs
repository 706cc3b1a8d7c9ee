use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Who waits for one piece of work.
///
/// Invariant: work ends once; nobody joins work that has ended.
#[derive(Debug, Default)]
pub(crate) struct Attendance {
    state: Mutex<State>,
    deserted: Notify,
}

/// One that waits. Leaves when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    attendance: Arc<Attendance>,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    joined: u64,
    ended: bool,
}

// === impl Attendance ===

impl Attendance {
    /// Waits too; `None` where the work has ended.
    pub(crate) fn join(self: &Arc<Self>) -> Option<Seat> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        state.waiting += 1;
        state.joined += 1;
        Some(Seat { attendance: Arc::clone(self) })
    }

    /// Resolves when the last one has left. Somebody may have joined since.
    pub(crate) async fn deserted(&self) {
        self.deserted.notified().await;
    }

    /// Ends the work if nobody waits for it and `give_up` says that it can be given up.
    pub(crate) fn end_if_deserted(&self, give_up: impl FnOnce() -> bool) -> bool {
        let mut state = self.lock();
        if !state.ended && state.waiting == 0 && give_up() {
            state.ended = true;
        }
        state.ended
    }

    /// Ends the work; says how many it was done for.
    pub(crate) fn end(&self) -> u64 {
        let mut state = self.lock();
        state.ended = true;
        state.joined
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.attendance.lock();
        state.waiting -= 1;
        if state.waiting == 0 {
            self.attendance.deserted.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_only_when_the_last_one_has_left() {
        let attendance = Arc::new(Attendance::default());
        let (first, second) = (attendance.join().unwrap(), attendance.join().unwrap());
        drop(first);
        assert!(!attendance.end_if_deserted(|| true));
        drop(second);
        attendance.deserted().await;
        assert!(!attendance.end_if_deserted(|| false), "it runs and goes on");
        let third = attendance.join().unwrap();
        assert!(!attendance.end_if_deserted(|| true), "somebody joined meanwhile");
        drop(third);
        assert!(attendance.end_if_deserted(|| true));
        assert!(attendance.join().is_none());
        assert_eq!(attendance.end(), 3);
    }
}
