//! The one thread that calls the driver for a device.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::budget::{Exhausted, counted};
use crate::device::Shared;
use crate::driver::{Context, ContextHandle, DeviceSlice, DeviceSliceMut, Pinned, Span, Stream};
use crate::fault::{Fault, FaultClass, INVALID_VALUE};
use crate::mailbox::Freed;
use crate::segment::{Buffer, Key, Reservation, Segment, StoreError};

mod serve;

pub(crate) use serve::{Gate, serve};

thread_local! {
    static CURRENT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is some device's owner.
pub(crate) fn is_current() -> bool {
    CURRENT.get()
}

/// A device, for a job that its owner does. The device's primary context is current.
///
/// A call that fails with a fault that loses the device takes it out of service once the job has
/// ended.
pub struct Owner {
    /// Goes before its context does.
    stream: Stream,
    context: Context,
    shared: Arc<Shared>,
    /// What is allocated and not yet freed.
    live: BTreeMap<u64, Span>,
    /// Devices whose memory this one's context may read.
    peers: BTreeSet<u32>,
    lost: Option<Fault>,
}

/// How a copy from a peer ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PeerCopy {
    Done,
    /// The devices do not reach each other, or not any more.
    NoAccess,
    /// It failed, and this device still answers.
    Suspect(Fault),
    /// It failed, and this device is lost.
    Lost(Fault),
}

// === impl Owner ===

impl Owner {
    /// Its device.
    pub fn ordinal(&self) -> u32 {
        self.shared.ordinal
    }

    /// Bytes of the device that are free, and all, as the driver tells them.
    ///
    /// # Errors
    /// What the driver says.
    pub fn memory(&mut self) -> Result<(u64, u64), Fault> {
        let asked = self.context.memory();
        self.note(asked)
    }

    /// Asks whether the device still answers. Call it after an error of candle's on this device:
    /// one that took the context with it shows here, and takes the device out of service.
    ///
    /// # Errors
    /// What the driver says.
    pub fn check(&mut self) -> Result<(), Fault> {
        let answered = self.context.memory().and_then(|_| self.stream.wait());
        if let Err(fault) = answered
            && !matches!(fault.class(), FaultClass::OutOfMemory)
        {
            self.lost.get_or_insert(fault);
        }
        answered
    }

    /// Holds room for buffers to come.
    ///
    /// # Errors
    /// [`Exhausted`] where there is no room, even after asking the device what is free.
    pub fn reserve(&mut self, bytes: u64) -> Result<Reservation, Exhausted> {
        self.free_waiting();
        let reserved = self.shared.reserve(bytes).or_else(|_| {
            self.reread();
            self.shared.reserve(bytes)
        });
        reserved.map_err(|free| self.exhausted(bytes, free))
    }

    /// Keeps bytes of the host as a segment, in held `room` or in what is free.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is kept then.
    pub fn store(
        &mut self,
        key: Key,
        bytes: &[u8],
        room: Option<&mut Reservation>,
    ) -> Result<Segment, StoreError> {
        let buffer = self.allocate(bytes.len() as u64, room)?;
        let uploaded = self.stream.upload(buffer.span(), bytes);
        self.note(uploaded)?;
        let checksum = self.shared.verify.then(|| blake3::hash(bytes));
        Ok(Segment::new(key, buffer, checksum))
    }

    /// Keeps memory of this device, such as the keys and values of all layers, one after another as
    /// a segment.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is kept then.
    pub fn gather(
        &mut self,
        key: Key,
        parts: &[DeviceSlice<'_>],
        room: Option<&mut Reservation>,
    ) -> Result<Segment, StoreError> {
        let bytes = parts.iter().map(DeviceSlice::bytes).sum();
        let buffer = self.allocate(bytes, room)?;
        let mut offset = 0;
        for part in parts {
            let to = within(buffer.span(), offset, part.bytes())?;
            let copied = self.stream.copy_within(to, part.span());
            self.note(copied)?;
            offset += part.bytes();
        }
        let checksum = self.shared.verify.then(|| self.hash(buffer.span())).transpose()?;
        Ok(Segment::new(key, buffer, checksum))
    }

    /// Fills memory of this device with a segment's bytes from `offset` on.
    ///
    /// # Errors
    /// A fault of class [`FaultClass::Bug`] where the segment is another device's or too short,
    /// else what the driver says.
    pub fn fill(
        &mut self,
        to: &mut DeviceSliceMut<'_>,
        segment: &Segment,
        offset: u64,
    ) -> Result<(), Fault> {
        self.owns(segment)?;
        let from = within(segment.span(), offset, to.bytes())?;
        let copied = self.stream.copy_within(to.span(), from);
        self.note(copied)
    }

    /// A segment's bytes.
    ///
    /// # Errors
    /// As [`Owner::fill`].
    pub fn read(&mut self, segment: &Segment) -> Result<Vec<u8>, Fault> {
        self.owns(segment)?;
        self.download_all(segment.span())
    }
}

/// What transfers do.
impl Owner {
    pub(crate) fn new(context: Context, stream: Stream, shared: Arc<Shared>) -> Self {
        Self { context, stream, shared, live: BTreeMap::new(), peers: BTreeSet::new(), lost: None }
    }

    /// Memory with arbitrary contents, within the budget.
    pub(crate) fn allocate(
        &mut self,
        bytes: u64,
        room: Option<&mut Reservation>,
    ) -> Result<Buffer, StoreError> {
        self.free_waiting();
        let counted = self.account(bytes, room)?;
        if bytes == 0 {
            let span = Span { ordinal: self.ordinal(), address: 0, bytes };
            return Ok(Buffer::new(span, counted, Arc::clone(&self.shared)));
        }
        match self.context.allocate(bytes) {
            Ok(span) => {
                self.live.insert(span.address, span);
                Ok(Buffer::new(span, counted, Arc::clone(&self.shared)))
            }
            Err(fault) => {
                self.shared.with_budget(|budget| budget.give_back(counted));
                if fault.class() == FaultClass::OutOfMemory {
                    // Somebody else took what the budget thought free.
                    self.reread();
                    let free = self.shared.with_budget(|budget| budget.free()).unwrap_or(0);
                    return Err(self.exhausted(bytes, free).into());
                }
                let _ = self.note(Err::<(), _>(fault));
                Err(fault.into())
            }
        }
    }

    pub(crate) fn upload(&mut self, to: Span, from: &[u8]) -> Result<(), Fault> {
        let copied = self.stream.upload(to, from);
        self.note(copied)
    }

    pub(crate) fn download(&mut self, from: Span, to: &mut [u8]) -> Result<(), Fault> {
        let copied = self.stream.download(from, to);
        self.note(copied)
    }

    pub(crate) fn copy_within(&mut self, to: Span, from: Span) -> Result<(), Fault> {
        let copied = self.stream.copy_within(to, from);
        self.note(copied)
    }

    pub(crate) fn copy_from_peer(&mut self, to: Span, from: Span, peer: ContextHandle) -> PeerCopy {
        if !self.peers.contains(&from.ordinal) {
            match self.context.enable_peer(peer) {
                Ok(()) => self.peers.insert(from.ordinal),
                Err(fault) => return self.judge(fault),
            };
        }
        match self.stream.copy_from_peer(to, &self.context, from, peer) {
            Ok(()) => PeerCopy::Done,
            Err(fault) => self.judge(fault),
        }
    }

    /// Whose fault it was that a copy between two devices failed: ours only if we no longer answer.
    fn judge(&mut self, fault: Fault) -> PeerCopy {
        if let Err(own) = self.check() {
            return PeerCopy::Lost(own);
        }
        match fault.class() {
            // Mapping a peer takes memory too; the way through the host needs none.
            FaultClass::PeerAccess | FaultClass::OutOfMemory => PeerCopy::NoAccess,
            FaultClass::Lost | FaultClass::Bug => PeerCopy::Suspect(fault),
        }
    }

    pub(crate) fn pin(&mut self, bytes: usize) -> Result<Pinned, Fault> {
        let pinned = self.context.pin(bytes);
        self.note(pinned)
    }

    pub(crate) fn hash(&mut self, span: Span) -> Result<blake3::Hash, Fault> {
        Ok(blake3::hash(&self.download_all(span)?))
    }

    fn download_all(&mut self, span: Span) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; usize::try_from(span.bytes).unwrap_or(0)];
        self.download(span, &mut bytes)?;
        Ok(bytes)
    }

    /// Notes what a result says of the device.
    fn note<T>(&mut self, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault) = &result {
            match fault.class() {
                FaultClass::Lost => {
                    self.lost.get_or_insert(*fault);
                }
                // A wrong call leaves the device well; a failure that nobody has described may not.
                FaultClass::Bug => {
                    let _ = self.check();
                }
                FaultClass::OutOfMemory | FaultClass::PeerAccess => {}
            }
        }
        result
    }

    fn account(&mut self, bytes: u64, room: Option<&mut Reservation>) -> Result<u64, StoreError> {
        let mut room = room.filter(|room| room.is_on(&self.shared));
        let mut take = |shared: &Shared| {
            shared.with_budget(|budget| match &mut room {
                Some(room) => budget.take_from(room.held(), bytes),
                None => budget.take(bytes),
            })
        };
        let mut taken = take(&self.shared).unwrap_or(Err(0));
        if taken.is_err() {
            self.reread();
            taken = take(&self.shared).unwrap_or(Err(0));
        }
        Ok(taken.map_err(|free| self.exhausted(bytes, free))?)
    }

    /// Follows what is free now.
    fn reread(&mut self) {
        if let Ok((free, _)) = self.memory() {
            self.shared.with_budget(|budget| budget.reread(free));
        }
    }

    fn exhausted(&self, bytes: u64, free: u64) -> Exhausted {
        Exhausted { device: self.ordinal(), wanted: counted(bytes), free }
    }

    fn owns(&self, segment: &Segment) -> Result<(), Fault> {
        if segment.is_on(&self.shared) {
            Ok(())
        } else {
            Err(misuse("a segment of another device"))
        }
    }

    /// Frees what nobody uses any more.
    fn free_waiting(&mut self) {
        let freed = self.shared.mailbox.take_freed();
        self.free(freed);
    }

    fn free(&mut self, freed: Vec<Freed>) {
        for Freed { span, counted } in freed {
            if self.live.remove(&span.address).is_some() && self.lost.is_none() {
                let done = self.context.free(span);
                let _ = self.note(done);
            }
            self.shared.with_budget(|budget| budget.give_back(counted));
        }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner")
            .field("ordinal", &self.ordinal())
            .field("live", &self.live.len())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

/// A call that was not made, since it cannot be right.
fn misuse(what: &'static str) -> Fault {
    Fault { call: what, code: INVALID_VALUE }
}

fn within(span: Span, offset: u64, bytes: u64) -> Result<Span, Fault> {
    span.part(offset, bytes).ok_or(misuse("a range beyond the segment"))
}
