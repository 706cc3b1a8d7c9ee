use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::budget::{Budget, BudgetUse, Exhausted, counted};
use crate::driver::{ContextHandle, Pinned};
use crate::fault::Fault;
use crate::health::{Health, HealthWatch};
use crate::job::{Job, Pending, Posted, QueueFull, Refusal, Unfinished};
use crate::mailbox::{Lane, Mailbox};
use crate::owner::{self, Owner};
use crate::segment::Reservation;

/// A device of a pool. Clones are the same device.
#[derive(Clone)]
pub struct Device(Arc<Shared>);

/// What a device's owner and those who use it share.
pub(crate) struct Shared {
    pub(crate) ordinal: u32,
    pub(crate) mailbox: Mailbox,
    pub(crate) watch: Arc<HealthWatch>,
    /// Whether copies are compared with checksums.
    pub(crate) verify: bool,
    /// Set before the pool is there.
    pub(crate) context: OnceLock<ContextHandle>,
    /// The two pinned buffers through which copies to this device go; who holds the lock copies.
    pub(crate) staging: Mutex<Vec<Arc<Mutex<Pinned>>>>,
    pub(crate) budget: Mutex<Option<Budget>>,
}

/// A reservation could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// There is no room.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The device is out of service.
    #[error("device {ordinal} was lost: {fault}")]
    DeviceLost {
        /// The device.
        ordinal: u32,
        /// What happened to it.
        fault: Fault,
    },
}

// === impl Device ===

impl Device {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Its number.
    pub fn ordinal(&self) -> u32 {
        self.0.ordinal
    }

    /// Has the owner do a job, after those that wait. Blocks while the queue is full.
    ///
    /// The owner's thread has the device's context current, so candle may be used in the job. A job
    /// that cannot be done comes back through [`Pending::wait`].
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Pending<T> {
        self.0.post(Box::new(job), Lane::Work)
    }

    /// As [`Device::run`], without blocking.
    ///
    /// # Errors
    /// [`QueueFull`] with the job.
    pub fn try_run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Result<Pending<T>, QueueFull<T>> {
        let (posted, pending) = Posted::new(Box::new(job));
        match self.0.mailbox.try_post(posted) {
            Ok(()) => Ok(pending),
            Err(posted) => Err(QueueFull { ordinal: self.0.ordinal, job: posted.job }),
        }
    }

    /// Whether it does work.
    pub fn health(&self) -> Health {
        self.0.mailbox.health()
    }

    /// Jobs and steps of copies that wait.
    pub fn waiting(&self) -> usize {
        self.0.mailbox.waiting()
    }

    /// What its memory's budget holds.
    pub fn budget(&self) -> BudgetUse {
        self.0.with_budget(|budget| budget.usage()).unwrap_or_default()
    }

    /// Lets segments take no more than `bytes`, such as [`Placed::cache_bytes`](crate::Placed),
    /// however much is free: weights and workspace are not in the budget.
    pub fn cap(&self, bytes: u64) {
        self.0.with_budget(|budget| budget.cap(bytes));
    }

    /// Holds room for buffers to come. Asks the device what is free where the budget is short, and
    /// so waits for its owner.
    ///
    /// # Errors
    /// [`ReserveError::Exhausted`] where there is no room.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, ReserveError> {
        let free = match self.0.reserve(bytes) {
            Ok(reservation) => return Ok(reservation),
            Err(free) => free,
        };
        let exhausted = Exhausted { device: self.0.ordinal, wanted: counted(bytes), free };
        if owner::is_current() {
            return Err(exhausted.into());
        }
        match self
            .0
            .post(Box::new(move |owner: &mut Owner| owner.reserve(bytes)), Lane::Transfer)
            .wait()
        {
            Ok(reserved) => Ok(reserved?),
            Err(Unfinished::DeviceLost { ordinal, fault, .. }) => {
                Err(ReserveError::DeviceLost { ordinal, fault })
            }
            Err(_) => Err(exhausted.into()),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("ordinal", &self.0.ordinal)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(ordinal: u32, queue: usize, verify: bool, watch: Arc<HealthWatch>) -> Self {
        Self {
            ordinal,
            mailbox: Mailbox::new(ordinal, queue),
            watch,
            verify,
            context: OnceLock::new(),
            staging: Mutex::default(),
            budget: Mutex::default(),
        }
    }

    /// Posts a job; on an owner's thread it is refused, since owners wait for nobody.
    pub(crate) fn post<T: Send + 'static>(&self, job: Job<T>, lane: Lane) -> Pending<T> {
        use crate::job::Envelope;
        let (posted, pending) = Posted::new(job);
        if owner::is_current() {
            Box::new(posted).refuse(Refusal::OnOwnerThread);
        } else {
            self.mailbox.post(Box::new(posted), lane);
        }
        pending
    }

    /// Takes the device out of service: nobody new comes in, who waits is sent back.
    pub(crate) fn lose(&self, fault: Fault) {
        self.mailbox.set_health(Health::Draining(fault));
        self.watch.announce(self.ordinal, Health::Draining(fault));
        self.mailbox.refuse_all(fault);
        self.mailbox.set_health(Health::Lost(fault));
        self.watch.announce(self.ordinal, Health::Lost(fault));
    }

    pub(crate) fn with_budget<T>(&self, with: impl FnOnce(&mut Budget) -> T) -> Option<T> {
        let mut budget: MutexGuard<'_, _> =
            self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.as_mut().map(with)
    }

    /// A reservation, or the bytes that are free.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, u64> {
        let held = self.with_budget(|budget| budget.reserve(bytes)).unwrap_or(Err(0))?;
        Ok(Reservation::new(held, Arc::clone(self)))
    }
}
