use std::fmt;
use std::sync::Arc;

use crate::budget::Exhausted;
use crate::device::Shared;
use crate::driver::Span;
use crate::fault::Fault;
use crate::mailbox::Freed;

/// What a segment holds, by name: 32 bytes, such as a digest of version, image and prompt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// Keys and values in a device's memory, which nobody changes any more.
///
/// Clones refer to the same memory. When the last one goes, wherever that is, the device's owner
/// frees it. Segments may outlive their pool and their device; they can no longer be read then.
#[derive(Clone, Debug)]
pub struct Segment(Arc<Content>);

#[derive(Debug)]
struct Content {
    key: Key,
    buffer: Buffer,
    checksum: Option<blake3::Hash>,
}

/// Memory could not be had, or not be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The driver failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Memory of a device that is accounted for, and freed by its owner.
pub(crate) struct Buffer {
    span: Span,
    counted: u64,
    device: Arc<Shared>,
}

/// Room that is held for buffers to come. It is given back when this goes. It is room in the books:
/// where another process takes the memory meanwhile, a buffer may still find none.
#[must_use = "the room is given back when this goes"]
pub struct Reservation {
    counted: u64,
    device: Arc<Shared>,
}

// === impl Segment ===

impl Segment {
    pub(crate) fn new(key: Key, buffer: Buffer, checksum: Option<blake3::Hash>) -> Self {
        Self(Arc::new(Content { key, buffer, checksum }))
    }

    /// What it holds.
    pub fn key(&self) -> Key {
        self.0.key
    }

    /// The device whose memory holds it.
    pub fn ordinal(&self) -> u32 {
        self.span().ordinal
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.span().bytes
    }

    /// BLAKE3 of its bytes, where the pool verifies copies.
    pub fn checksum(&self) -> Option<blake3::Hash> {
        self.0.checksum
    }

    /// Where it lies on its device. Stays true while the segment, its pool and its device last.
    pub fn address(&self) -> u64 {
        self.span().address
    }

    pub(crate) fn span(&self) -> Span {
        self.0.buffer.span
    }

    /// Whether it is memory of this device of this pool.
    pub(crate) fn is_on(&self, device: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.0.buffer.device, device)
    }
}

// === impl Buffer ===

impl Buffer {
    pub(crate) fn new(span: Span, counted: u64, device: Arc<Shared>) -> Self {
        Self { span, counted, device }
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.mailbox.free(Freed { span: self.span, counted: self.counted });
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("span", &self.span).finish_non_exhaustive()
    }
}

// === impl Reservation ===

impl Reservation {
    pub(crate) fn new(counted: u64, device: Arc<Shared>) -> Self {
        Self { counted, device }
    }

    /// The device.
    pub fn ordinal(&self) -> u32 {
        self.device.ordinal
    }

    /// Bytes that are still held.
    pub fn bytes(&self) -> u64 {
        self.counted
    }

    pub(crate) fn held(&mut self) -> &mut u64 {
        &mut self.counted
    }

    pub(crate) fn is_on(&self, device: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let held = self.counted;
        self.device.with_budget(|budget| budget.release(held));
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("ordinal", &self.ordinal())
            .field("bytes", &self.counted)
            .finish_non_exhaustive()
    }
}

// === impl Key ===

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}
