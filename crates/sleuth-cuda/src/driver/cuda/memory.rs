//! Streams, pinned memory and copies.
//!
//! A copy that touches host memory is sound because it is waited for before the borrow ends. Where
//! that wait fails, the driver has given the context up and its engines no longer run.

use super::{
    Context, ContextHandle, Fault, INVALID_VALUE, Span, c_uint, c_void, result, sys, wrapped,
};

/// Work of one device in order, on the thread and in the context that it was made in.
#[derive(Debug)]
pub(crate) struct Stream {
    ordinal: u32,
    context: ContextHandle,
    raw: sys::CUstream,
}

/// Host memory that does not move.
#[derive(Debug)]
pub(crate) struct Pinned {
    start: *mut u8,
    len: usize,
}

// SAFETY: it owns plain bytes, which any thread may use.
unsafe impl Send for Pinned {}

/// Copies of all contexts see the memory as pinned.
const PORTABLE: c_uint = sys::CU_MEMHOSTALLOC_PORTABLE;

// === impl Stream ===

impl Stream {
    /// In the context that is current.
    pub(super) fn new(ordinal: u32, context: ContextHandle) -> Result<Self, Fault> {
        let raw = wrapped(
            "cuStreamCreate",
            result::stream::create(result::stream::StreamKind::NonBlocking),
        )?;
        Ok(Self { ordinal, context, raw })
    }

    /// Copies from the host and waits for it.
    pub(crate) fn upload(&self, to: Span, from: &[u8]) -> Result<(), Fault> {
        const CALL: &str = "cuMemcpyHtoDAsync_v2";
        if from.is_empty() && to.bytes == 0 {
            return Ok(());
        }
        self.owns(CALL, to, from.len() as u64)?;
        // SAFETY: `from` outlives the copy, which is waited for below whatever it returned; `to` is
        // memory of this stream's device and as long.
        let issued =
            wrapped(CALL, unsafe { result::memcpy_htod_async(to.address, from, self.raw) });
        issued.and(self.wait())
    }

    /// Copies to the host and waits for it.
    pub(crate) fn download(&self, from: Span, to: &mut [u8]) -> Result<(), Fault> {
        const CALL: &str = "cuMemcpyDtoHAsync_v2";
        if to.is_empty() && from.bytes == 0 {
            return Ok(());
        }
        self.owns(CALL, from, to.len() as u64)?;
        // SAFETY: nobody else uses `to` until the copy has been waited for below; both are as long.
        let issued =
            wrapped(CALL, unsafe { result::memcpy_dtoh_async(to, from.address, self.raw) });
        issued.and(self.wait())
    }

    /// Copies on this device and waits for it.
    pub(crate) fn copy_within(&self, to: Span, from: Span) -> Result<(), Fault> {
        const CALL: &str = "cuMemcpyDtoDAsync_v2";
        if to.bytes == 0 && from.bytes == 0 {
            return Ok(());
        }
        self.owns(CALL, to, from.bytes)?;
        self.owns(CALL, from, to.bytes)?;
        // SAFETY: both are memory of this stream's device and equally long; no host memory is
        // involved.
        let issued = wrapped(CALL, unsafe {
            result::memcpy_dtod_async(to.address, from.address, size(from), self.raw)
        });
        issued.and(self.wait())
    }

    /// Copies from another device, by this device's engines, and waits for it.
    pub(crate) fn copy_from_peer(
        &self,
        to: Span,
        context: &Context,
        from: Span,
        peer: ContextHandle,
    ) -> Result<(), Fault> {
        const CALL: &str = "cuMemcpyPeerAsync";
        if to.bytes == 0 && from.bytes == 0 {
            return Ok(());
        }
        self.owns(CALL, to, from.bytes)?;
        // SAFETY: both contexts live (see `ContextHandle`); `to` is memory of this one, `from` of
        // the peer, equally long; no host memory is involved.
        let issued = wrapped(CALL, unsafe {
            result::memcpy_peer_async(
                context.raw,
                to.address,
                peer.0,
                from.address,
                size(from),
                self.raw,
            )
        });
        issued.and(self.wait())
    }

    /// Waits for all that was issued.
    pub(crate) fn wait(&self) -> Result<(), Fault> {
        self.context.bind()?;
        // SAFETY: the stream lives until `self` is dropped.
        wrapped("cuStreamSynchronize", unsafe { result::stream::synchronize(self.raw) })
    }

    /// Makes the context current, and refuses what is not this device's or not as long.
    fn owns(&self, call: &'static str, span: Span, bytes: u64) -> Result<(), Fault> {
        self.context.bind()?;
        if span.ordinal == self.ordinal && span.bytes == bytes {
            Ok(())
        } else {
            Err(Fault { call, code: INVALID_VALUE })
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: made by `new` and destroyed once. An error means that the context is gone.
        let _ = unsafe { result::stream::destroy(self.raw) };
    }
}

// === impl Pinned ===

impl Pinned {
    /// In the context that is current.
    pub(super) fn allocate(len: usize) -> Result<Self, Fault> {
        // SAFETY: the bytes are written before anybody sees them, just below.
        let start = wrapped("cuMemHostAlloc", unsafe { result::malloc_host(len, PORTABLE) })?;
        let start = start.cast::<u8>();
        // SAFETY: the driver gave `len` bytes from `start`.
        unsafe { start.write_bytes(0, len) };
        Ok(Self { start, len })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: `len` written bytes from `start`, which `self` owns; no copy is under way, since
        // every one is waited for while it holds this borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub(super) fn free(&mut self) {
        if self.len > 0 {
            self.len = 0;
            // SAFETY: `cuMemHostAlloc` gave it and nobody refers to it: `len` is 0 now. Where the
            // context is gone the memory goes with it.
            let _ = unsafe { result::free_host(self.start.cast::<c_void>()) };
        }
    }
}

/// A span's length; the driver gave it out, so it fits.
fn size(span: Span) -> usize {
    usize::try_from(span.bytes).unwrap_or(usize::MAX)
}
