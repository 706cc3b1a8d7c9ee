//! What waits for an owner: memory to free first, then transfers, then jobs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::driver::Span;
use crate::fault::Fault;
use crate::health::Health;
use crate::job::{Envelope, Refusal};

pub(crate) type Mail = Box<dyn Envelope>;

/// Memory that nobody uses any more, and what it counts for.
#[derive(Debug)]
pub(crate) struct Freed {
    pub(crate) span: Span,
    pub(crate) counted: u64,
}

pub(crate) enum Next {
    Free(Vec<Freed>),
    Run(Mail),
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Steps of copies. Few, short, and somebody's prefix waits for them: they pass the jobs.
    Transfer,
    /// Jobs, as many as the queue holds.
    Work,
}

pub(crate) struct Mailbox {
    ordinal: u32,
    capacity: usize,
    state: Mutex<State>,
    arrived: Condvar,
    room: Condvar,
}

struct State {
    transfers: VecDeque<Mail>,
    jobs: VecDeque<Mail>,
    /// Bounded by the buffers that there are.
    freed: Vec<Freed>,
    health: Health,
    closed: bool,
}

// === impl Mailbox ===

impl Mailbox {
    pub(crate) fn new(ordinal: u32, capacity: usize) -> Self {
        Self {
            ordinal,
            capacity: capacity.max(1),
            state: Mutex::new(State {
                transfers: VecDeque::new(),
                jobs: VecDeque::new(),
                freed: Vec::new(),
                health: Health::Serving,
                closed: false,
            }),
            arrived: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Takes mail in, waiting for room in the queue of jobs. Refuses it where nobody will read it.
    pub(crate) fn post(&self, mail: Mail, lane: Lane) {
        let mut state = self.lock();
        if lane == Lane::Work {
            state = self
                .room
                .wait_while(state, |state| {
                    self.refusal(state).is_none() && state.jobs.len() >= self.capacity
                })
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.admit(state, mail, lane);
    }

    /// Whether a job would have to wait for room.
    pub(crate) fn try_post<M: Envelope + 'static>(&self, mail: M) -> Result<(), M> {
        let state = self.lock();
        if self.refusal(&state).is_none() && state.jobs.len() >= self.capacity {
            return Err(mail);
        }
        self.admit(state, Box::new(mail), Lane::Work);
        Ok(())
    }

    fn admit(&self, mut state: MutexGuard<'_, State>, mail: Mail, lane: Lane) {
        if let Some(why) = self.refusal(&state) {
            drop(state);
            mail.refuse(why);
            return;
        }
        match lane {
            Lane::Transfer => state.transfers.push_back(mail),
            Lane::Work => state.jobs.push_back(mail),
        }
        drop(state);
        self.arrived.notify_one();
    }

    fn refusal(&self, state: &State) -> Option<Refusal> {
        match state.health {
            _ if state.closed => Some(Refusal::Closed),
            Health::Serving => None,
            Health::Draining(fault) | Health::Lost(fault) => {
                Some(Refusal::Lost { ordinal: self.ordinal, fault })
            }
        }
    }

    /// Leaves memory to be freed by the owner. What comes after the end went with the context.
    pub(crate) fn free(&self, freed: Freed) {
        self.lock().freed.push(freed);
        self.arrived.notify_one();
    }

    pub(crate) fn take_freed(&self) -> Vec<Freed> {
        std::mem::take(&mut self.lock().freed)
    }

    /// The owner's next work; blocks until there is some.
    pub(crate) fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            if !state.freed.is_empty() {
                return Next::Free(std::mem::take(&mut state.freed));
            }
            if state.closed {
                return Next::Close;
            }
            if let Some(mail) = state.transfers.pop_front() {
                return Next::Run(mail);
            }
            if let Some(mail) = state.jobs.pop_front() {
                drop(state);
                self.room.notify_one();
                return Next::Run(mail);
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.lock().health
    }

    pub(crate) fn set_health(&self, health: Health) {
        self.lock().health = health;
        // Who waits for room in a queue that nobody reads any more shall not.
        self.room.notify_all();
    }

    /// Sends everybody who waits away.
    pub(crate) fn refuse_all(&self, fault: Fault) {
        let why = Refusal::Lost { ordinal: self.ordinal, fault };
        self.drain().into_iter().for_each(|mail| mail.refuse(why));
    }

    /// Takes nothing more in, and sends everybody who waits away.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
        self.arrived.notify_all();
        self.drain().into_iter().for_each(|mail| mail.refuse(Refusal::Closed));
    }

    fn drain(&self) -> Vec<Mail> {
        let mut state = self.lock();
        let mut all: Vec<_> = state.transfers.drain(..).collect();
        all.extend(state.jobs.drain(..));
        all
    }

    pub(crate) fn waiting(&self) -> usize {
        let state = self.lock();
        state.transfers.len() + state.jobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
