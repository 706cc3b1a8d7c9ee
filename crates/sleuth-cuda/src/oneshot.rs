//! One value from one thread to another, waited for by blocking or as a future.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    sender_is_gone: bool,
    waker: Option<Waker>,
}

/// The side that sends.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Slot<T>>);

/// The side that waits.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Slot<T>>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot {
        state: Mutex::new(State { value: None, sender_is_gone: false, waker: None }),
        filled: Condvar::new(),
    });
    (Sender(Arc::clone(&slot)), Receiver(slot))
}

// === impl Slot ===

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.waker.take()
        };
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// === impl Sender ===

impl<T> Sender<T> {
    pub(crate) fn send(self, value: T) {
        self.0.change(|state| state.value = Some(value));
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.sender_is_gone = true);
    }
}

// === impl Receiver ===

impl<T> Receiver<T> {
    /// Blocks until the value is there; none where the sender went without one.
    pub(crate) fn wait(self) -> Option<T> {
        let state = self.0.lock();
        let mut state = self
            .0
            .filled
            .wait_while(state, |state| state.value.is_none() && !state.sender_is_gone)
            .unwrap_or_else(PoisonError::into_inner);
        state.value.take()
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Some(value));
        }
        if state.sender_is_gone {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_value_arrives_on_another_thread() {
        let (sender, receiver) = channel();
        let waiting = thread::spawn(move || receiver.wait());
        sender.send(7);
        assert_eq!(waiting.join().unwrap(), Some(7));
    }

    #[test]
    fn a_sender_that_goes_ends_the_wait() {
        let (sender, receiver) = channel::<u8>();
        let waiting = thread::spawn(move || receiver.wait());
        drop(sender);
        assert_eq!(waiting.join().unwrap(), None);
    }

    #[test]
    fn a_future_is_woken_once_and_is_ready() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let (sender, receiver) = channel();
        let mut receiver = std::pin::pin!(receiver);
        assert_eq!(receiver.as_mut().poll(&mut cx), Poll::Pending);
        sender.send(7);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(receiver.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
    }
}
