//! Work for an owner, and what becomes of it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::fault::Fault;
use crate::oneshot;
use crate::owner::Owner;

/// Work that a device's owner does.
pub type Job<T> = Box<dyn FnOnce(&mut Owner) -> T + Send>;

/// A job that was not done, or not to its end.
#[derive(thiserror::Error)]
pub enum Unfinished<T> {
    /// The device was lost. A job that had not begun comes back, to be run elsewhere.
    #[error("device {ordinal} was lost: {fault}")]
    DeviceLost {
        /// The device.
        ordinal: u32,
        /// What happened to it.
        fault: Fault,
        /// The job.
        job: Option<Job<T>>,
    },
    /// The pool was dropped. A job that had not begun comes back.
    #[error("the device pool is closed")]
    Closed {
        /// The job.
        job: Option<Job<T>>,
    },
    /// The job panicked. The device goes on.
    #[error("a job on device {ordinal} panicked: {message}")]
    Panicked {
        /// The device.
        ordinal: u32,
        /// What the panic said.
        message: String,
    },
    /// It was given from an owner's thread. Owners wait for nobody's jobs, else two could wait for
    /// each other.
    #[error("a device's owner waits for no job of another or its own")]
    OnOwnerThread,
}

/// A queue is full; the job comes back.
#[derive(thiserror::Error)]
#[error("the queue of device {ordinal} is full")]
pub struct QueueFull<T> {
    /// The device.
    pub ordinal: u32,
    /// The job.
    pub job: Job<T>,
}

/// A job's result to come: block for it, or await it on any executor.
#[must_use = "a job's result, and that it failed, is in here"]
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T, Unfinished<T>>>);

/// Why a job is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Lost { ordinal: u32, fault: Fault },
    Closed,
    OnOwnerThread,
}

/// A job whose type is forgotten.
pub(crate) trait Envelope: Send {
    /// Does it and tells whether it panicked.
    fn run(self: Box<Self>, owner: &mut Owner) -> bool;
    fn refuse(self: Box<Self>, why: Refusal);
}

pub(crate) struct Posted<T> {
    pub(crate) job: Job<T>,
    reply: oneshot::Sender<Result<T, Unfinished<T>>>,
}

impl<T: Send + 'static> Posted<T> {
    pub(crate) fn new(job: Job<T>) -> (Self, Pending<T>) {
        let (reply, receiver) = oneshot::channel();
        (Self { job, reply }, Pending(receiver))
    }
}

// === impl Posted ===

impl<T: Send + 'static> Envelope for Posted<T> {
    fn run(self: Box<Self>, owner: &mut Owner) -> bool {
        let ordinal = owner.ordinal();
        let Self { job, reply } = *self;
        // An owner's state is whole between its calls, and a job's own is dropped.
        match catch_unwind(AssertUnwindSafe(|| job(owner))) {
            Ok(value) => {
                reply.send(Ok(value));
                false
            }
            Err(payload) => {
                let message = message(payload.as_ref());
                reply.send(Err(Unfinished::Panicked { ordinal, message }));
                true
            }
        }
    }

    fn refuse(self: Box<Self>, why: Refusal) {
        let Self { job, reply } = *self;
        reply.send(Err(match why {
            Refusal::Lost { ordinal, fault } => {
                Unfinished::DeviceLost { ordinal, fault, job: Some(job) }
            }
            Refusal::Closed => Unfinished::Closed { job: Some(job) },
            Refusal::OnOwnerThread => Unfinished::OnOwnerThread,
        }));
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

// === impl Pending ===

impl<T> Pending<T> {
    /// Blocks until the job is done or refused.
    ///
    /// # Errors
    /// [`Unfinished`] where it was not done.
    pub fn wait(self) -> Result<T, Unfinished<T>> {
        self.0.wait().unwrap_or(Err(Unfinished::Closed { job: None }))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Unfinished<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let arrived = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(arrived.unwrap_or(Err(Unfinished::Closed { job: None })))
    }
}

// === impl Debug ===

impl<T> fmt::Debug for Unfinished<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unfinished({self})")
    }
}

impl<T> fmt::Debug for QueueFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueFull({})", self.ordinal)
    }
}
