//! An owner's life: make the context, do what comes, free everything, let the context go.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{CURRENT, Owner};
use crate::budget::{Budget, MemoryShare};
use crate::device::Shared;
use crate::driver::Context;
use crate::fault::Fault;
use crate::mailbox::Next;
use crate::oneshot;

/// Where owners wait for each other at the end: copies name the contexts of two devices, so no
/// context goes before every owner has stopped copying.
#[derive(Debug)]
pub(crate) struct Gate {
    at_work: Mutex<usize>,
    all_stopped: Condvar,
}

// === impl Gate ===

impl Gate {
    pub(crate) fn new() -> Self {
        Self { at_work: Mutex::new(0), all_stopped: Condvar::new() }
    }

    pub(crate) fn enter(&self) {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub(crate) fn leave(&self) {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.all_stopped.notify_all();
    }

    fn wait(&self) {
        let at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.all_stopped.wait_while(at_work, |at_work| *at_work > 0));
    }
}

/// The body of an owner's thread. Tells through `ready` whether the device could be opened.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    share: MemoryShare,
    gate: &Gate,
    ready: oneshot::Sender<Result<(), Fault>>,
) {
    CURRENT.set(true);
    let mut owner = match open(shared, share) {
        Ok(owner) => owner,
        Err(fault) => {
            ready.send(Err(fault));
            gate.leave();
            return;
        }
    };
    ready.send(Ok(()));
    work(&mut owner);
    gate.leave();
    gate.wait();
    owner.end();
}

fn open(shared: &Arc<Shared>, share: MemoryShare) -> Result<Owner, Fault> {
    let context = Context::retain(shared.ordinal)?;
    let stream = context.stream()?;
    let (free, _) = context.memory()?;
    *shared.budget.lock().unwrap_or_else(PoisonError::into_inner) = Some(Budget::new(share, free));
    // It is set nowhere else.
    let _ = shared.context.set(context.handle());
    Ok(Owner::new(context, stream, Arc::clone(shared)))
}

fn work(owner: &mut Owner) {
    let shared = Arc::clone(&owner.shared);
    let mut told = false;
    loop {
        match shared.mailbox.next() {
            Next::Free(freed) => owner.free(freed),
            Next::Run(mail) => {
                if mail.run(owner) {
                    // A panic may have followed an error of the device that the job took for its
                    // own.
                    let _ = owner.check();
                }
            }
            Next::Close => return,
        }
        if let Some(fault) = owner.lost
            && !told
        {
            told = true;
            shared.lose(fault);
        }
    }
}

// === impl Owner ===

impl Owner {
    /// Frees all that is left, whoever still refers to it, and lets the context go.
    fn end(mut self) {
        self.free_waiting();
        let staging = std::mem::take(
            &mut *self.shared.staging.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for pinned in staging {
            self.context.unpin(&mut pinned.lock().unwrap_or_else(PoisonError::into_inner));
        }
        for span in std::mem::take(&mut self.live).into_values() {
            // The context goes next, and whatever could not be freed with it.
            let _ = self.context.free(span);
        }
    }
}
