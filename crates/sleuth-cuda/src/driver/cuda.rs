#![expect(unsafe_code, reason = "calls into libcuda; what makes each sound stands beside it")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use cudarc::driver::{result, sys};

use super::Span;
use crate::capability::ComputeCapability;
use crate::discovery::{
    DeviceFacts, DeviceUuid, Discovery, Driver, DriverVersion, Fitness, NoDriver, OLDEST_DRIVER,
    UnfitReason,
};
use crate::fault::{Fault, INVALID_VALUE, NO_DEVICE, PEER_ACCESS_ALREADY_ENABLED};
use crate::peers::PeerMatrix;

mod memory;
mod probe;

pub(crate) use memory::{Pinned, Stream};
pub(crate) use probe::discover;

/// A device's primary context, current on the thread that made it and let go by the same thread.
///
/// Primary contexts are what cudarc's `CudaContext` and so candle use: memory of either is the
/// other's too.
#[derive(Debug)]
pub(crate) struct Context {
    ordinal: u32,
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

/// A context by name, for copies between devices. Used only while its [`Context`] lives: the pool
/// lets no context go before all of its threads have stopped working.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextHandle(sys::CUcontext);

// SAFETY: the handle is a name that libcuda looks up; libcuda may be called with it from any
// thread.
unsafe impl Send for ContextHandle {}
// SAFETY: as above, and it cannot be changed.
unsafe impl Sync for ContextHandle {}

/// Makes a [`Fault`] of what a function of the driver returned.
fn checked(call: &'static str, returned: sys::CUresult) -> Result<(), Fault> {
    match returned as u32 {
        0 => Ok(()),
        code => Err(Fault { call, code }),
    }
}

/// As [`checked`], for cudarc's wrappers.
fn wrapped<T>(call: &'static str, result: Result<T, result::DriverError>) -> Result<T, Fault> {
    result.map_err(|error| Fault { call, code: error.0 as u32 })
}

fn device(ordinal: u32) -> Result<sys::CUdevice, Fault> {
    const CALL: &str = "cuDeviceGet";
    let number = c_int::try_from(ordinal).map_err(|_| Fault { call: CALL, code: INVALID_VALUE })?;
    wrapped(CALL, result::device::get(number))
}

// === impl ContextHandle ===

impl ContextHandle {
    /// Makes the context current on this thread. Every call does so first: what a job does with
    /// cudarc or candle may have left another device's context current.
    fn bind(self) -> Result<(), Fault> {
        // SAFETY: the context lives as long as its handle is used (see `ContextHandle`).
        wrapped("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.0) })
    }
}

// === impl Context ===

impl Context {
    /// Retains the primary context of a device and makes it current on this thread. The driver must
    /// have started, which [`discover`] sees to.
    pub(crate) fn retain(ordinal: u32) -> Result<Self, Fault> {
        let device = device(ordinal)?;
        // SAFETY: the device is one that `cuDeviceGet` returned.
        let raw =
            wrapped("cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
        let context = Self { ordinal, device, raw };
        context.handle().bind()?;
        Ok(context)
    }

    pub(crate) fn handle(&self) -> ContextHandle {
        ContextHandle(self.raw)
    }

    /// Bytes that are free, and all.
    pub(crate) fn memory(&self) -> Result<(u64, u64), Fault> {
        self.handle().bind()?;
        let (free, total) = wrapped("cuMemGetInfo_v2", result::mem_get_info())?;
        Ok((free as u64, total as u64))
    }

    /// Memory with arbitrary contents.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Span, Fault> {
        let wanted = usize::try_from(bytes)
            .map_err(|_| Fault { call: "cuMemAlloc_v2", code: INVALID_VALUE })?;
        self.handle().bind()?;
        // SAFETY: device memory is reached through copies only, and copies of bytes read any
        // contents.
        let address = wrapped("cuMemAlloc_v2", unsafe { result::malloc_sync(wanted) })?;
        Ok(Span { ordinal: self.ordinal, address, bytes })
    }

    /// Frees what [`Context::allocate`] gave. Waits for copies that use it.
    pub(crate) fn free(&self, span: Span) -> Result<(), Fault> {
        self.handle().bind()?;
        // SAFETY: the driver refuses an address that it has not given out, or has taken back.
        // Copies have ended: every one is waited for where it is issued.
        wrapped("cuMemFree_v2", unsafe { result::free_sync(span.address) })
    }

    /// Host memory that every device copies from and to at full speed.
    pub(crate) fn pin(&self, bytes: usize) -> Result<Pinned, Fault> {
        self.handle().bind()?;
        Pinned::allocate(bytes)
    }

    /// Gives the memory back; it is empty afterwards.
    pub(crate) fn unpin(&self, pinned: &mut Pinned) {
        // Where the context is gone the memory went with it.
        let _ = self.handle().bind();
        pinned.free();
    }

    /// A stream of its own, in order, which waits for no other.
    pub(crate) fn stream(&self) -> Result<Stream, Fault> {
        self.handle().bind()?;
        Stream::new(self.ordinal, self.handle())
    }

    /// Lets this context read the peer's memory.
    pub(crate) fn enable_peer(&self, peer: ContextHandle) -> Result<(), Fault> {
        self.handle().bind()?;
        // SAFETY: this context is current on this thread, and the peer's lives (see
        // `ContextHandle`).
        let returned = unsafe { sys::cuCtxEnablePeerAccess(peer.0, 0) };
        match checked("cuCtxEnablePeerAccess", returned) {
            // candle or somebody else has asked before.
            Err(fault) if fault.code == PEER_ACCESS_ALREADY_ENABLED => Ok(()),
            other => other,
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: leaving the thread without a context harms nothing. The device is valid, and this
        // is the one release for the one retain. An error means that the context is gone already.
        unsafe {
            let _ = result::ctx::set_current(std::ptr::null_mut());
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
