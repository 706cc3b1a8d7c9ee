//! Copies between devices: directly where they reach each other, else through pinned memory of the
//! host.
//!
//! Invariants
//! - A copy is driven by the thread that asks. Owners do its steps and never wait for each other,
//!   so copies in opposite directions cannot block each other.
//! - When a copy has returned, with whatever result, no step of it is left.
//! - A device that receives has two pinned buffers, made at its first copy through the host. While
//!   one is sent on, the next is filled; neither is filled before what it held has arrived.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::budget::Exhausted;
use crate::device::Device;
use crate::driver::{DeviceSlice, DeviceSliceMut, Span};
use crate::fault::Fault;
use crate::job::Pending;
use crate::mailbox::Lane;
use crate::owner::{self, Owner, PeerCopy};
use crate::pool::Fleet;
use crate::segment::{Buffer, Segment, StoreError};

mod steps;

use steps::{Chunk, fill, parts, send_on, settle, step};

/// Copies between the devices of a pool.
#[derive(Clone)]
pub struct Transfer {
    fleet: Arc<Fleet>,
}

/// The way that bytes took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Within one device.
    Local,
    /// Directly from device to device.
    Peer,
    /// Through pinned memory of the host.
    Host,
}

/// All copies of a pool that were completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferStats {
    /// Directly from device to device.
    pub peer_copies: u64,
    /// Their bytes.
    pub peer_bytes: u64,
    /// Through the host.
    pub host_copies: u64,
    /// Their bytes.
    pub host_bytes: u64,
}

/// A copy that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The receiving device has no room.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The sending device failed. Another one that holds the bytes may do.
    #[error("device {ordinal} could not send: {fault}")]
    Source {
        /// The device.
        ordinal: u32,
        /// What happened.
        fault: Fault,
    },
    /// The receiving device failed.
    #[error("device {ordinal} could not receive: {fault}")]
    Destination {
        /// The device.
        ordinal: u32,
        /// What happened.
        fault: Fault,
    },
    /// The copy's checksum was another than the original's. It is gone already.
    #[error("a copy from device {from} to device {to} arrived with other bytes")]
    Corrupt {
        /// The device that sent.
        from: u32,
        /// The device that received.
        to: u32,
    },
    /// Both sides must be as long.
    #[error("{from} bytes cannot be copied over {to} bytes: make both as long")]
    Unequal {
        /// Bytes to copy.
        from: u64,
        /// Bytes to copy to.
        to: u64,
    },
    /// The pool has no such device.
    #[error("the pool has no device {0}")]
    NoDevice(u32),
    /// It was asked for on an owner's thread, which must not wait for another.
    #[error("a device's owner waits for no copy: ask for it before the job, from another thread")]
    OnOwnerThread,
    /// The pool was dropped.
    #[error("the device pool is closed")]
    Closed,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    peer_copies: AtomicU64,
    peer_bytes: AtomicU64,
    host_copies: AtomicU64,
    host_bytes: AtomicU64,
}

// === impl Transfer ===

impl Transfer {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet }
    }

    /// Copies memory that somebody else holds, between two devices or on one. Blocks until it is
    /// done.
    ///
    /// # Errors
    /// [`TransferError`]; what `to` holds is undefined then.
    pub fn copy(
        &self,
        from: &DeviceSlice<'_>,
        to: &mut DeviceSliceMut<'_>,
    ) -> Result<Route, TransferError> {
        if from.bytes() != to.bytes() {
            return Err(TransferError::Unequal { from: from.bytes(), to: to.bytes() });
        }
        self.move_bytes(from.span(), to.span(), None)
    }

    /// Copies a segment to another device, and compares its checksum if it has one. Blocks until it
    /// is done.
    ///
    /// # Errors
    /// [`TransferError`]; there is no copy then.
    pub fn copy_segment(
        &self,
        segment: &Segment,
        to: u32,
    ) -> Result<(Segment, Route), TransferError> {
        let device = self.device(to)?;
        let bytes = segment.bytes();
        let buffer = settle(
            device.shared().post(
                Box::new(move |owner: &mut Owner| owner.allocate(bytes, None)),
                Lane::Transfer,
            ),
            |fault| TransferError::Destination { ordinal: to, fault },
        )?;
        let buffer = buffer.map_err(|error| match error {
            StoreError::Exhausted(exhausted) => TransferError::Exhausted(exhausted),
            StoreError::Fault(fault) => TransferError::Destination { ordinal: to, fault },
        })?;
        let route = self.move_bytes(segment.span(), buffer.span(), Some(segment))?;
        if let Some(checksum) = segment.checksum() {
            compare(&buffer, device, checksum, segment.ordinal())?;
        }
        Ok((Segment::new(segment.key(), buffer, segment.checksum()), route))
    }

    /// Copies that were completed.
    pub fn stats(&self) -> TransferStats {
        let counters = &self.fleet.counters;
        TransferStats {
            peer_copies: counters.peer_copies.load(Ordering::Relaxed),
            peer_bytes: counters.peer_bytes.load(Ordering::Relaxed),
            host_copies: counters.host_copies.load(Ordering::Relaxed),
            host_bytes: counters.host_bytes.load(Ordering::Relaxed),
        }
    }

    /// `keep` holds what is copied, for as long as a step of the copy may run.
    fn move_bytes(
        &self,
        from: Span,
        to: Span,
        keep: Option<&Segment>,
    ) -> Result<Route, TransferError> {
        if owner::is_current() {
            return Err(TransferError::OnOwnerThread);
        }
        let (source, destination) = (self.device(from.ordinal)?, self.device(to.ordinal)?);
        let route = if from.ordinal == to.ordinal {
            copy_locally(destination, from, to, keep)?;
            Route::Local
        } else if self.fleet.peers().reaches(from.ordinal, to.ordinal)
            && self.copy_directly(source, destination, from, to, keep)?
        {
            Route::Peer
        } else {
            self.copy_through_host(source, destination, from, to, keep)?;
            Route::Host
        };
        self.fleet.counters.count(route, to.bytes);
        Ok(route)
    }

    /// Whether there was a way.
    fn copy_directly(
        &self,
        source: &Device,
        destination: &Device,
        from: Span,
        to: Span,
        keep: Option<&Segment>,
    ) -> Result<bool, TransferError> {
        let Some(peer) = source.shared().context.get().copied() else { return Ok(false) };
        let receiving = |fault| TransferError::Destination { ordinal: to.ordinal, fault };
        let sending = |fault| TransferError::Source { ordinal: from.ordinal, fault };
        let step_ = step(destination, keep, move |owner| owner.copy_from_peer(to, from, peer));
        match settle(step_, receiving)? {
            PeerCopy::Done => Ok(true),
            PeerCopy::NoAccess => {
                self.fleet.peers().close(from.ordinal, to.ordinal);
                Ok(false)
            }
            PeerCopy::Lost(fault) => Err(receiving(fault)),
            PeerCopy::Suspect(fault) => {
                // The source's owner finds out whether it is lost, and takes it out of service if
                // so.
                let answer = settle(step(source, None, Owner::check), sending)?;
                Err(sending(answer.err().unwrap_or(fault)))
            }
        }
    }

    fn copy_through_host(
        &self,
        source: &Device,
        destination: &Device,
        from: Span,
        to: Span,
        keep: Option<&Segment>,
    ) -> Result<(), TransferError> {
        let receiving = |fault| TransferError::Destination { ordinal: to.ordinal, fault };
        let sending = |fault| TransferError::Source { ordinal: from.ordinal, fault };
        let mut staging =
            destination.shared().staging.lock().unwrap_or_else(PoisonError::into_inner);
        self.pin(destination, &mut staging, to)?;
        let mut sent_on: Option<Pending<Result<(), Fault>>> = None;
        let mut result = Ok(());
        for (index, (from, to)) in parts(from, to, self.fleet.chunk_bytes as u64).enumerate() {
            // Its last contents were waited for one turn ago.
            let chunk = &staging[index % 2];
            let filled = fill(source, keep, from, Arc::clone(chunk));
            result = settle(filled, sending).and_then(|filled| filled.map_err(sending));
            if let Some(sent_on) = sent_on.take() {
                let arrived = settle(sent_on, receiving).and_then(|sent| sent.map_err(receiving));
                result = result.and(arrived);
            }
            if result.is_err() {
                break;
            }
            sent_on = Some(send_on(destination, to, Arc::clone(chunk)));
        }
        match sent_on {
            Some(last) => settle(last, receiving)?.map_err(receiving),
            None => result,
        }
    }

    /// Makes the two buffers if they are not there yet.
    fn pin(
        &self,
        device: &Device,
        staging: &mut MutexGuard<'_, Vec<Chunk>>,
        to: Span,
    ) -> Result<(), TransferError> {
        let receiving = |fault| TransferError::Destination { ordinal: to.ordinal, fault };
        let bytes = self.fleet.chunk_bytes;
        while to.bytes > 0 && staging.len() < 2 {
            let pinned = settle(step(device, None, move |owner| owner.pin(bytes)), receiving)?;
            staging.push(Arc::new(Mutex::new(pinned.map_err(receiving)?)));
        }
        Ok(())
    }

    fn device(&self, ordinal: u32) -> Result<&Device, TransferError> {
        self.fleet.device(ordinal).ok_or(TransferError::NoDevice(ordinal))
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

// === impl Counters ===

impl Counters {
    fn count(&self, route: Route, bytes: u64) {
        let (copies, moved) = match route {
            Route::Local => return,
            Route::Peer => (&self.peer_copies, &self.peer_bytes),
            Route::Host => (&self.host_copies, &self.host_bytes),
        };
        copies.fetch_add(1, Ordering::Relaxed);
        moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn copy_locally(
    device: &Device,
    from: Span,
    to: Span,
    keep: Option<&Segment>,
) -> Result<(), TransferError> {
    let failed = |fault| TransferError::Destination { ordinal: to.ordinal, fault };
    let step = step(device, keep, move |owner| owner.copy_within(to, from));
    settle(step, failed)?.map_err(failed)
}

fn compare(
    buffer: &Buffer,
    device: &Device,
    checksum: blake3::Hash,
    from: u32,
) -> Result<(), TransferError> {
    let to = device.ordinal();
    let receiving = |fault| TransferError::Destination { ordinal: to, fault };
    let span = buffer.span();
    let found = settle(step(device, None, move |owner| owner.hash(span)), receiving)?;
    if found.map_err(receiving)? == checksum {
        Ok(())
    } else {
        Err(TransferError::Corrupt { from, to })
    }
}
