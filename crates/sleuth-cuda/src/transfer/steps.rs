//! The steps of a copy, each done by one device's owner.

use std::sync::{Arc, Mutex, PoisonError};

use super::TransferError;
use crate::device::Device;
use crate::driver::{Pinned, Span};
use crate::fault::Fault;
use crate::job::{Pending, Unfinished};
use crate::mailbox::Lane;
use crate::owner::Owner;
use crate::segment::Segment;

/// A pinned buffer. Only steps lock it, and only for as long as they run.
pub(super) type Chunk = Arc<Mutex<Pinned>>;

/// A step of a copy on a device, before its jobs. It holds what is copied.
pub(super) fn step<T: Send + 'static>(
    device: &Device,
    keep: Option<&Segment>,
    step: impl FnOnce(&mut Owner) -> T + Send + 'static,
) -> Pending<T> {
    let keep = keep.cloned();
    let job = move |owner: &mut Owner| {
        let done = step(owner);
        drop(keep);
        done
    };
    device.shared().post(Box::new(job), Lane::Transfer)
}

pub(super) fn fill(
    source: &Device,
    keep: Option<&Segment>,
    from: Span,
    chunk: Chunk,
) -> Pending<Result<(), Fault>> {
    step(source, keep, move |owner| {
        let mut chunk = chunk.lock().unwrap_or_else(PoisonError::into_inner);
        let to = chunk.bytes().get_mut(..from.bytes as usize);
        owner.download(from, to.unwrap_or_default())
    })
}

pub(super) fn send_on(destination: &Device, to: Span, chunk: Chunk) -> Pending<Result<(), Fault>> {
    step(destination, None, move |owner| {
        let mut chunk = chunk.lock().unwrap_or_else(PoisonError::into_inner);
        let from = chunk.bytes().get(..to.bytes as usize);
        owner.upload(to, from.unwrap_or_default())
    })
}

/// Waits for a step; `failed` says whose failure it is when its device was lost before.
pub(super) fn settle<T>(
    step: Pending<T>,
    failed: impl Fn(Fault) -> TransferError,
) -> Result<T, TransferError> {
    step.wait().map_err(|unfinished| match unfinished {
        Unfinished::DeviceLost { fault, .. } => failed(fault),
        Unfinished::Closed { .. } => TransferError::Closed,
        Unfinished::OnOwnerThread => TransferError::OnOwnerThread,
        // Steps do not panic; if one does, its device is to blame.
        Unfinished::Panicked { .. } => failed(Fault { call: "a step of a copy", code: 999 }),
    })
}

/// Both ranges in pieces of at most `chunk` bytes.
pub(super) fn parts(from: Span, to: Span, chunk: u64) -> impl Iterator<Item = (Span, Span)> {
    let pieces = from.bytes.div_ceil(chunk);
    (0..pieces).filter_map(move |piece| {
        let offset = piece * chunk;
        let bytes = chunk.min(from.bytes - offset);
        Some((from.part(offset, bytes)?, to.part(offset, bytes)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_once_and_in_order() {
        for (bytes, chunk) in [(0, 4), (1, 4), (4, 4), (5, 4), (8, 4), (9, 4), (7, 1), (3, 100)] {
            let from = Span { ordinal: 0, address: 1000, bytes };
            let to = Span { ordinal: 1, address: 5000, bytes };
            let mut next = 0;
            for (from, to) in parts(from, to, chunk) {
                assert_eq!((from.address, to.address), (1000 + next, 5000 + next));
                assert_eq!(from.bytes, to.bytes);
                assert!(from.bytes > 0 && from.bytes <= chunk);
                next += from.bytes;
            }
            assert_eq!(next, bytes, "{bytes} by {chunk}");
        }
    }
}
