//! What only CUDA devices have: faults of the driver, and copies between devices.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasStatus_t;
use candle_core::cuda_backend::{CudaDType, CudaError, CudaStorage};
use candle_core::{DType, Device, Error, InplaceOp1, Layout, Storage, Tensor, bail};
use half::{bf16, f16};
use sleuth_cuda::{DeviceSlice, DeviceSliceMut, Fault, FaultClass, Pool, Transfer, TransferError};

use super::courier::{Courier, ThroughHost};
use crate::LoadError;
use crate::backbone::PassError;

/// What the driver's error says of a device; `None` where it says nothing of it.
pub(super) fn fault(error: &Error, device: &Device) -> Option<PassError> {
    let class = match driver_error(error)? {
        CudaError::Cuda(error) | CudaError::Load { cuda: error, .. } => {
            Fault { call: "a kernel", code: error.0 as u32 }.class()
        }
        CudaError::Cublas(error) if error.0 == cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => {
            FaultClass::OutOfMemory
        }
        _ => FaultClass::Bug,
    };
    match class {
        FaultClass::OutOfMemory => Some(PassError::OutOfMemory),
        FaultClass::Lost => Some(PassError::DeviceLost(error.to_string())),
        // The library's own codes do not tell a wrong call from a device that died under it.
        FaultClass::Bug | FaultClass::PeerAccess => match device.synchronize() {
            Err(after) if is_lost(&after) => Some(PassError::DeviceLost(error.to_string())),
            _ => None,
        },
    }
}

fn is_lost(error: &Error) -> bool {
    matches!(driver_error(error), Some(CudaError::Cuda(error))
        if Fault { call: "synchronise", code: error.0 as u32 }.class() == FaultClass::Lost)
}

fn driver_error(error: &Error) -> Option<&CudaError> {
    match error {
        Error::Cuda(inner) => inner.downcast_ref(),
        Error::WithBacktrace { inner, .. }
        | Error::WithPath { inner, .. }
        | Error::Context { inner, .. } => driver_error(inner),
        _ => None,
    }
}

/// Straight from device to device where they reach each other, else through pinned memory.
pub struct BetweenDevices {
    transfer: Transfer,
    /// Its threads make the copies.
    _pool: Pool,
}

/// Fills a tensor with the bytes of another one.
struct Fill<'a> {
    from: DeviceSlice<'a>,
    transfer: &'a Transfer,
    /// Why it failed: candle's errors keep no more than its text.
    failed: Mutex<Option<TransferError>>,
}

/// A copy that was not made.
enum CopyError {
    Transfer(TransferError),
    Candle(Error),
}

// === impl BetweenDevices ===

impl BetweenDevices {
    /// Over a pool's devices.
    pub fn new(pool: Pool) -> Self {
        Self { transfer: pool.transfer(), _pool: pool }
    }

    fn copy(&self, tensor: &Tensor, to: &Device) -> Result<Tensor, CopyError> {
        let tensor = tensor.contiguous()?;
        let copy = Tensor::zeros(tensor.dims(), tensor.dtype(), to)?;
        let (storage, layout) = tensor.storage_and_layout();
        let from = slice(&storage, layout)?;
        let fill = Fill { from, transfer: &self.transfer, failed: Mutex::default() };
        match copy.inplace_op1(&fill) {
            Ok(()) => Ok(copy),
            Err(error) => {
                let failed = fill.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
                Err(failed.map_or(CopyError::Candle(error), CopyError::Transfer))
            }
        }
    }
}

impl fmt::Debug for BetweenDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BetweenDevices").field(&self.transfer.stats()).finish()
    }
}

impl Courier for BetweenDevices {
    fn carry(&self, tensor: &Tensor, to: &Device) -> Result<Tensor, PassError> {
        if !tensor.device().is_cuda() || !to.is_cuda() {
            return ThroughHost.carry(tensor, to);
        }
        self.copy(tensor, to).map_err(|error| match error {
            CopyError::Candle(error) => super::fault::fault(error, to),
            CopyError::Transfer(error) => refused(&error),
        })
    }
}

/// What a copy that was not made says of the device that was to receive it.
fn refused(error: &TransferError) -> PassError {
    match error {
        TransferError::Exhausted(_) => PassError::OutOfMemory,
        TransferError::Destination { fault, .. } => match fault.class() {
            FaultClass::OutOfMemory => PassError::OutOfMemory,
            FaultClass::Lost => PassError::DeviceLost(error.to_string()),
            FaultClass::Bug | FaultClass::PeerAccess => failed(error),
        },
        _ => failed(error),
    }
}

fn failed(error: &TransferError) -> PassError {
    PassError::Failed(LoadError::Tensor(Error::Msg(error.to_string())))
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        Self::Candle(error)
    }
}

/// The bytes of a contiguous tensor on a CUDA device.
fn slice<'a>(storage: &'a Storage, layout: &Layout) -> candle_core::Result<DeviceSlice<'a>> {
    let Storage::Cuda(storage) = storage else { bail!("the tensor is on no CUDA device") };
    match storage.dtype() {
        DType::F32 => read::<f32>(storage, layout),
        DType::F16 => read::<f16>(storage, layout),
        DType::BF16 => read::<bf16>(storage, layout),
        other => bail!("{other:?} is no type that is copied between devices"),
    }
}

fn read<'a, T: CudaDType + 'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> candle_core::Result<DeviceSlice<'a>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("not contiguous") };
    let slice = storage.as_cuda_slice::<T>()?;
    let all = DeviceSlice::of(slice).map_err(Error::wrap)?;
    let size = size_of::<T>() as u64;
    let part = all.into_part(start as u64 * size, (end - start) as u64 * size);
    part.ok_or_else(|| Error::Msg("the tensor lies outside of its memory".to_owned()).bt())
}

impl InplaceOp1 for Fill<'_> {
    fn name(&self) -> &'static str {
        "fill-from-device"
    }

    fn cpu_fwd(&self, _: &mut candle_core::CpuStorage, _: &Layout) -> candle_core::Result<()> {
        bail!("a copy between devices does not end on the CPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> candle_core::Result<()> {
        match storage.dtype() {
            DType::F32 => self.write::<f32>(storage),
            DType::F16 => self.write::<f16>(storage),
            DType::BF16 => self.write::<bf16>(storage),
            other => bail!("{other:?} is no type that is copied between devices"),
        }
    }
}

impl Fill<'_> {
    fn write<T: CudaDType>(&self, storage: &mut CudaStorage) -> candle_core::Result<()> {
        let slice = storage.as_cuda_slice_mut::<T>()?;
        let mut to = DeviceSliceMut::of(slice).map_err(Error::wrap)?;
        match self.transfer.copy(&self.from, &mut to) {
            Ok(_) => Ok(()),
            Err(error) => {
                let said = Error::Msg(error.to_string());
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(said)
            }
        }
    }
}
