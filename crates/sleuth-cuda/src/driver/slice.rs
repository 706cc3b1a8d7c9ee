#![expect(unsafe_code, reason = "names memory that somebody else holds by its address")]

use std::marker::PhantomData;

use super::Span;

/// Device memory that somebody else holds, such as a tensor's, to copy from.
#[derive(Debug)]
pub struct DeviceSlice<'a> {
    span: Span,
    held: PhantomData<&'a [u8]>,
}

/// Device memory that somebody else holds, to copy to.
#[derive(Debug)]
pub struct DeviceSliceMut<'a> {
    span: Span,
    held: PhantomData<&'a mut [u8]>,
}

// === impl DeviceSlice ===

impl DeviceSlice<'_> {
    /// Memory at an address.
    ///
    /// # Safety
    /// - `address` is memory of device `ordinal`, in its primary context, with at least `bytes`
    ///   bytes.
    /// - For `'a` it stays allocated and nobody writes to it; what was written before has been
    ///   waited for.
    pub unsafe fn from_raw(ordinal: u32, address: u64, bytes: u64) -> Self {
        Self { span: Span { ordinal, address, bytes }, held: PhantomData }
    }

    /// The device.
    pub fn ordinal(&self) -> u32 {
        self.span.ordinal
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.span.bytes
    }

    /// `bytes` from `offset` on; none where they do not lie within.
    pub fn part(&self, offset: u64, bytes: u64) -> Option<DeviceSlice<'_>> {
        Some(DeviceSlice { span: self.span.part(offset, bytes)?, held: PhantomData })
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }
}

impl DeviceSlice<'_> {
    /// As [`Self::part`], for as long as the whole.
    pub fn into_part(self, offset: u64, bytes: u64) -> Option<Self> {
        Some(Self { span: self.span.part(offset, bytes)?, held: PhantomData })
    }
}

#[cfg(feature = "cuda")]
impl<'a> DeviceSlice<'a> {
    /// The memory of a cudarc slice, such as a candle tensor's. Waits for the slice's stream, so
    /// that what was written before is complete.
    ///
    /// # Errors
    /// What the driver says where it cannot be waited for.
    pub fn of<T>(slice: &'a cudarc::driver::CudaSlice<T>) -> Result<Self, crate::fault::Fault> {
        use cudarc::driver::DevicePtr;
        let stream = slice.stream();
        let (address, _recorded) = slice.device_ptr(stream);
        settle(stream)?;
        let span = Span {
            ordinal: stream.context().ordinal() as u32,
            address,
            bytes: slice.num_bytes() as u64,
        };
        Ok(Self { span, held: PhantomData })
    }
}

// === impl DeviceSliceMut ===

impl DeviceSliceMut<'_> {
    /// Memory at an address.
    ///
    /// # Safety
    /// - `address` is memory of device `ordinal`, in its primary context, with at least `bytes`
    ///   bytes.
    /// - For `'a` it stays allocated and nobody else reads or writes it; what was under way before
    ///   has been waited for.
    pub unsafe fn from_raw(ordinal: u32, address: u64, bytes: u64) -> Self {
        Self { span: Span { ordinal, address, bytes }, held: PhantomData }
    }

    /// The device.
    pub fn ordinal(&self) -> u32 {
        self.span.ordinal
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.span.bytes
    }

    /// `bytes` from `offset` on; none where they do not lie within.
    pub fn part(&mut self, offset: u64, bytes: u64) -> Option<DeviceSliceMut<'_>> {
        Some(DeviceSliceMut { span: self.span.part(offset, bytes)?, held: PhantomData })
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }
}

#[cfg(feature = "cuda")]
impl<'a> DeviceSliceMut<'a> {
    /// The memory of a cudarc slice. Waits for the slice's stream, so that nothing uses it any
    /// more.
    ///
    /// # Errors
    /// What the driver says where it cannot be waited for.
    pub fn of<T>(slice: &'a mut cudarc::driver::CudaSlice<T>) -> Result<Self, crate::fault::Fault> {
        use cudarc::driver::DevicePtrMut;
        let stream = slice.stream().clone();
        let bytes = slice.num_bytes() as u64;
        let (address, recorded) = slice.device_ptr_mut(&stream);
        drop(recorded);
        settle(&stream)?;
        let span = Span { ordinal: stream.context().ordinal() as u32, address, bytes };
        Ok(Self { span, held: PhantomData })
    }
}

/// Waits until the stream has done all that it was given.
#[cfg(feature = "cuda")]
fn settle(stream: &cudarc::driver::CudaStream) -> Result<(), crate::fault::Fault> {
    stream
        .synchronize()
        .map_err(|error| crate::fault::Fault { call: "cuStreamSynchronize", code: error.0 as u32 })
}
