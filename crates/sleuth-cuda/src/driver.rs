//! The seam to libcuda: the only place that calls it. Without the feature `cuda` the same names
//! stand for nothing, so that all else compiles and is tested everywhere.
//!
//! Every copy here is issued and waited for in one call, so no host memory is in use by a device
//! after a function has returned. Device memory is named by [`Span`]s, which are plain numbers: a
//! wrong one makes the driver refuse, or spoils memory of a device, but never reaches memory of the
//! process.

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
mod lazy;
#[cfg(feature = "cuda")]
mod library;
mod slice;

#[cfg(not(feature = "cuda"))]
pub(crate) use absent::{Context, ContextHandle, Pinned, Stream, discover};
#[cfg(feature = "cuda")]
pub(crate) use cuda::{Context, ContextHandle, Pinned, Stream, discover};
pub use slice::{DeviceSlice, DeviceSliceMut};

/// A range of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) ordinal: u32,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
}

// === impl Span ===

impl Span {
    /// `bytes` from `offset` on; none where they do not lie within.
    pub(crate) fn part(self, offset: u64, bytes: u64) -> Option<Self> {
        let end = offset.checked_add(bytes)?;
        (end <= self.bytes).then_some(Self {
            address: self.address.wrapping_add(offset),
            bytes,
            ordinal: self.ordinal,
        })
    }
}
